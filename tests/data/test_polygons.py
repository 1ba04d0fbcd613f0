"""The rasteriser: exact against pycocotools, near Pillow, rules by an oracle, bad input."""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

from seenet.core.errors import DataError
from seenet.data.polygons import (
    LONGEST,
    Instance,
    Overlap,
    draw,
    encode,
    read_binary,
    run_lengths,
)

tools = pytest.importorskip("pycocotools.mask")

H, W = 40, 60
masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.lists(
        st.lists(st.booleans(), min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    ).map(lambda rows: np.array(rows, bool))
)


def runs(flat: np.ndarray) -> list[int]:
    """Return the run lengths of bools, the first of False."""
    lengths: list[int] = [0]
    value = False
    for pixel in flat.tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def drawn(segmentation: Any, height: int = H, width: int = W) -> np.ndarray:
    return draw([Instance(1, False, segmentation)], height, width)[0] == 1


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@given(masks)
@settings(deadline=None)
def test_run_lengths_are_exact(mask: np.ndarray) -> None:
    height, width = mask.shape
    counts = runs(mask.T.ravel())
    text = tools.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert run_lengths(text) == counts
    for some in (text, counts):
        found = drawn({"size": [height, width], "counts": some}, height, width)
        assert np.array_equal(found, mask)


@given(masks, st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_run_lengths_by_rows_in_a_box_are_exact(mask: np.ndarray, left: int, top: int) -> None:
    height, width = mask.shape
    segmentation = {"box": (left, top, width, height), "counts": runs(mask.ravel())}
    expected = np.zeros((20, 20), bool)
    expected[top : top + height, left : left + width] = mask
    assert np.array_equal(drawn(segmentation, 20, 20), expected)


@given(st.text(max_size=30))
@settings(deadline=None)
def test_any_text_is_run_lengths_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(count, int) for count in run_lengths(text))


def test_real_annotations_are_drawn_as_pycocotools_does(shared: Path) -> None:
    from pycocotools.coco import COCO

    path = shared / "data" / "coco" / "annotations" / "instances_val2017.json"
    reader = COCO(str(path))
    sizes = {image["id"]: (image["height"], image["width"]) for image in reader.dataset["images"]}
    entries = json.loads(path.read_text())["annotations"]
    assert len(entries) > 100
    for entry in entries:
        size = sizes[entry["image_id"]]
        expected = reader.annToMask(entry).astype(bool)
        assert np.array_equal(tools.decode(encode(entry["segmentation"], *size)), expected)


@given(st.lists(st.tuples(st.floats(0, W - 1), st.floats(0, H - 1)), min_size=3, max_size=8))
@settings(max_examples=200, deadline=None)
def test_polygons_differ_from_pillows_by_a_pixel_at_most(points: list[tuple[float, float]]) -> None:
    """Labelme draws by Pillow. Where an outline crosses itself, the two fill alike (even-odd)."""
    image = Image.new("1", (W, H))
    ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
    line = Image.new("1", (W, H))
    ImageDraw.Draw(line).line([*points, points[0]], fill=1)
    differ = drawn([[value for point in points for value in point]]) != np.asarray(image)
    near = binary_dilation(np.asarray(line), np.ones((3, 3)))
    assert not (differ & ~near).any()


def oracle(instances: list[Instance], y: int, x: int, overlap: Overlap) -> int:
    """Apply the rules to one pixel."""
    over, crowd = [], False
    for place, one in enumerate(instances):
        pixels = drawn(one.segmentation)
        if pixels[y, x]:
            crowd |= one.crowd
            if not one.crowd:
                over.append((one.layer, -int(pixels.sum()), place, one.label))
    if overlap == "ignore" and len({entry[3] for entry in over}) > 1:
        return 255
    return max(over)[3] if over else 255 if crowd else 0


boxes = st.builds(
    lambda label, crowd, left, top, width, height, layer: Instance(
        label, crowd, box(left, top, left + width, top + height), layer
    ),
    st.integers(0, 3),
    st.sampled_from([False, False, True]),
    st.integers(0, 40),
    st.integers(0, 30),
    st.integers(4, 20),
    st.integers(4, 10),
    st.integers(-1, 1),
)


@given(st.lists(boxes, max_size=6), st.sampled_from(["ignore", "smallest-on-top"]))
@settings(max_examples=100, deadline=None)
def test_rules_of_overlap(instances: list[Instance], overlap: Overlap) -> None:
    mask, overlapped = draw(instances, H, W, overlap)
    for y, x in np.random.default_rng(0).integers(0, (H, W), (20, 2)).tolist():
        assert mask[y, x] == oracle(instances, y, x, overlap)
    classes = [
        np.any([drawn(one.segmentation) for one in instances if one.label == label], axis=0)
        for label in {one.label for one in instances if not one.crowd}
        if not any(one.crowd for one in instances)
    ]
    if classes:
        assert overlapped == (np.sum(classes, axis=0) > 1).sum()


def test_more_classes_than_a_byte_holds() -> None:
    mask, _ = draw(
        [Instance(300, False, box(0, 0, 9, 9)), Instance(1, True, box(20, 20, 30, 30))],
        H,
        W,
        ignore=65535,
    )
    assert (mask.dtype, mask[0, 0], mask[25, 25], mask[-1, -1]) == (np.uint16, 300, 65535, 0)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 10**400, 5, 5, 5]], "a corner at 10\\^15 or more"),
        ([[0, 0, math.nan, 5, 5, 5]], "a corner at nan"),
        ([[0, 0, -math.inf, 5, 5, 5]], "a corner at -inf"),
        ([[0, 0, 700, 5, 5, 5]], "a corner at 700"),
        ([[0, 0, [], 5, 5, 5]], r"a corner at \[\]"),
        ([{}], "no list of at least three corners"),
        ([[0, 0, 599, 399] * 10_000], f"in length, expected at most {LONGEST}"),
        ({"box": (0, 0, 4, 4), "counts": [15]}, "of 15 pixels for a mask of 16"),
        ({"box": (0, 0, 4, 4), "counts": [-1, 17]}, "no whole numbers"),
        ({"box": (58, 0, 4, 4), "counts": [16]}, "outside the picture of 60 x 40"),
        ({"box": (0, 0, 0, 4), "counts": []}, "outside the picture"),
        ({"box": (0, 0, 10**9, 10**9), "counts": [10**18]}, "outside the picture"),
        ({"size": [H, W], "counts": [10**400]}, "of 10\\^15 or more pixels"),
        (None, "neither outlines nor run lengths"),
    ],
)
def test_hostile_segmentations_are_refused_at_once(segmentation: Any, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=message):
        encode(segmentation, H, W)
    assert time.monotonic() - started < 2


def disc() -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return np.asarray((y - 20) ** 2 + (x - 30) ** 2 < 150)


def write(path: Path, values: np.ndarray, palette: list[int] | None = None) -> Path:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def test_mask_files_of_one_class(tmp_path: Path) -> None:
    mask = disc()
    ids = mask.astype(np.uint8)
    files = [
        write(tmp_path / "bool.png", mask),
        write(tmp_path / "one.png", ids),
        write(tmp_path / "white.png", ids * 255),
        write(tmp_path / "wide.png", ids.astype(np.uint16) * 65535),
        write(tmp_path / "red.png", np.stack([ids * 200, ids * 0, ids * 0], axis=-1)),
        write(tmp_path / "alpha.png", np.stack([ids * 255] * 3 + [ids * 0 + 255], axis=-1)),
        write(tmp_path / "palette.png", ids, [0, 0, 0, 255, 255, 255]),
        write(tmp_path / "inverse.png", 1 - ids, [255, 255, 255, 0, 0, 0]),
    ]
    for path in files:
        assert np.array_equal(read_binary(path, H, W), mask), path
    blurred = write(tmp_path / "lossy.jpg", ids * 255)
    edge = binary_dilation(mask) & ~binary_erosion(mask)
    assert np.array_equal(read_binary(blurred, H, W)[~edge], mask[~edge])
    assert not read_binary(write(tmp_path / "empty.png", ids * 0), H, W).any()
    assert read_binary(write(tmp_path / "full.png", ids * 0 + 255), H, W).all()


def test_other_mask_files_are_refused(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (H, W), np.uint8)
    with pytest.raises(DataError, match="values, expected two"):
        read_binary(write(tmp_path / "photo.png", grey), H, W)
    with pytest.raises(DataError, match=r"40 x 60 pixels, but its picture has 41 x 60"):
        read_binary(write(tmp_path / "a.png", disc()), H + 1, W)
