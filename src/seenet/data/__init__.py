"""Data sets as splits of pictures and masks, and what is done to them before training."""

from collections.abc import Callable

from seenet.core.settings import DataSettings
from seenet.data.camvid import open_camvid, open_drives
from seenet.data.cityscapes import open_cityscapes
from seenet.data.coco import open_coco
from seenet.data.folder import open_folder
from seenet.data.shapes import open_shapes
from seenet.data.split import FileSplit, Split
from seenet.data.voc import open_voc

__all__ = ["Split", "list_split", "open_split"]

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
    """A split of the data that a recipe names.

    Raises DataError where a folder, a list, a picture or a mask is missing, or the split is empty; UsageError for a split that the data
    set does not have.
    """
    split = list_split(settings, which)
    if isinstance(split, FileSplit):
        for index in range(len(split)):
            for _, error in split.missing(index):
                raise error
    return split


def list_split(settings: DataSettings, which: str) -> Split:
    """As `open_split`, but single pictures and masks need not be there."""
    return KINDS[settings.kind](settings, which)
