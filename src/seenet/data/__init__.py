"""Open a split of a data set that a recipe names."""

from collections.abc import Callable

from seenet.core.settings import DataSettings
from seenet.data.camvid import open_camvid, open_drives
from seenet.data.cityscapes import open_cityscapes
from seenet.data.coco import open_coco
from seenet.data.folder import open_folder
from seenet.data.own import open_own
from seenet.data.shapes import open_shapes
from seenet.data.split import FileSplit, Split
from seenet.data.voc import open_voc

__all__ = ["Split", "list_split", "open_split"]

# A data set outside the package is named by its callable and opened by `open_own`. To add one here,
# write one file beside this one, with its label set and a function `open_NAME(settings, which)`
# that returns a `Split` (`camvid.py` is the shortest), and enter it. `settings.Kind` lists the same
# names, so that a misspelt recipe is refused at once.
KINDS: dict[str, Callable[[DataSettings, str], Split]] = {
    "camvid": open_camvid,
    "camvid-drives": open_drives,
    "voc": open_voc,
    "coco": open_coco,
    "cityscapes": open_cityscapes,
    "folder": open_folder,
    "shapes": open_shapes,
}


def open_split(settings: DataSettings, which: str) -> Split:
    """Open a split of the data that a recipe names.

    Raises:
        DataError: a folder, list, image or mask is missing, or the split is empty.
        UsageError: the data set has no such split, or the user's own code fails.
    """
    split = list_split(settings, which)
    if isinstance(split, FileSplit):
        for index in range(len(split)):
            for _, error in split.missing(index):
                raise error
    return split


def list_split(settings: DataSettings, which: str) -> Split:
    """Open a split as `open_split` does, but allow missing images and masks."""
    return KINDS.get(settings.kind, open_own)(settings, which)
