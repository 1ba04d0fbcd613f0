"""Every row of the table in docs/your-data.md is run as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.commands import run
from tests.data import annotated, bands, beside, noise
from tests.data.layouts import LAYOUTS
from tests.data.reading import good, write

assert annotated and bands and beside and noise  # they enter their generators
TEXT = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
# The data sets of the rows, in their order.
SETS = [
    "same_names", "at_the_top", "suffix", "train_images_masks", "camvid_of_segnet",
    "mmsegmentation", "idd_lite", "voc", "roboflow", "cvat_masks", "few_greys_jpeg", "numpy_masks",
    "ids_in_alpha", "grey_to_3999", "five_bands_16_bit_tiff",
    "six_bands_numpy", "coco", "labelme", "cvat", "yolo", "file_of_each_instance",
    "files_of_classes",
]  # fmt: skip
ROWS = [line for line in TEXT.splitlines() if line.startswith("|") and "data init DATA`" in line]


def test_every_row_has_a_data_set() -> None:
    assert len(ROWS) == len(SETS)


@pytest.mark.parametrize(("name", "row"), list(zip(SETS, ROWS, strict=False)))
def test_what_you_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, row: str
) -> None:
    root, truth = write(tmp_path, LAYOUTS[name])
    for command in re.findall(r"`seenet ([^`]+)`", row.rsplit("|", 2)[1]):
        arguments = [str(root) if part == "DATA" else part for part in shlex.split(command)]
        code, out, err = run(capsys, *arguments)
        assert code == 0, out + err
    good(capsys, root, truth)
