"""A data set of the user's own, opened by `data.kind: package.module:callable`.

The callable is called with the recipe's section `data` and the name of a split, and returns a
`Split`; `split.file_split` makes one of pairs of files. Since it is code, it comes from the user's
settings alone: the recipe beside a model never decides that it is run (`refuse_code`).
"""

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.files import load_callable, own_code
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, Split, reader_of

NEEDED = ("name", "labels", "__len__", "key", "read", "image", "paths", "stamp")
"""The members of `Split`."""


def open_own(settings: DataSettings, which: str) -> Split:
    """Open a split by the user's own callable, and look at it and its first sample.

    Raises:
        UsageError: the callable cannot be imported or fails, or gives no `Split`.
        DataError: whatever the callable says of its files, or a split without pictures.
    """
    name = f"data.kind={settings.kind}"
    opener = load_callable(settings.kind, "data.kind", "(settings, split)")
    with own_code(name):
        split: Split = opener(settings, which)
    missing = [member for member in NEEDED if not hasattr(split, member)]
    if missing:
        raise UsageError(
            f"{name}: gave a {type(split).__name__} without {', '.join(missing)}, expected a "
            "seenet.data.split.Split; file_split makes one of pairs of files"
        )
    if not isinstance(split.labels, LabelSet):
        raise UsageError(
            f"{name}: its labels are a {type(split.labels).__name__}, expected a "
            "seenet.core.labels.LabelSet"
        )
    with own_code(name):
        if not len(split):
            raise DataError(f"{split.name}: no pictures found", kind="empty-split")
        _check_sample(split, name)
    return split


def _check_sample(split: Split, name: str) -> None:
    """Look at the first picture and mask, if they are there and good; the others are like them."""
    files = isinstance(split, FileSplit)
    try:
        if isinstance(split, FileSplit):
            if split.missing(0):
                return
            image, mask = split.image(0), split.mask(0)
        else:
            image, mask = split.read(0)
    except DataError:
        # Met where all files are read, and told there with all that is wrong. So are files of two
        # sizes.
        return
    image, mask = np.asarray(image), np.asarray(mask)
    channels = reader_of(split).count
    is_picture = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == channels
    is_mask = mask.dtype.kind in "iu" and mask.ndim == 2
    if not (is_picture and is_mask and (files or image.shape[:2] == mask.shape)):
        raise UsageError(
            f"{name}: gives image {image.shape} {image.dtype} and mask {mask.shape} {mask.dtype}; "
            f"expected H x W x {channels} uint8 and H x W integers"
        )
