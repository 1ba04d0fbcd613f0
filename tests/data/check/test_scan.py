"""The check before training: errors, its cache, class statistics, and work shared by ranks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seenet.core.errors import DataError
from seenet.core.images import read_ids
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check import scan
from seenet.data.check.scan import check_split, split_stats
from seenet.data.check.stats import check_ids
from seenet.data.cityscapes import CITYSCAPES19
from seenet.data.split import FileSplit, file_split
from tests.data.pictures import picture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def camvid_split(camvid: Path) -> FileSplit:
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(split, FileSplit)
    return split


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.array([[255, 255, 255, *[0] * 45]], np.uint8).reshape(6, 8),
            r"0001TP_1\.png: ids 255 \(3 pixels\).*masks of camvid11 hold no others",
        ),
        (np.zeros((5, 8), np.uint8), "5 x 8 pixels, but its picture"),
    ],
)
def test_a_changed_mask_is_checked_again(camvid: Path, mask: np.ndarray, message: str) -> None:
    split = camvid_split(camvid)
    assert check_split(split) == check_split(split)
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    with pytest.raises(DataError, match=message):
        check_split(split)


def test_truncated_images_are_found(camvid: Path) -> None:
    path = camvid / "train" / "0001TP_1.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"0001TP_1\.png: .*truncated"):
        check_split(camvid_split(camvid))


@pytest.mark.parametrize(
    "text", ["", "{broken", "[1, 2]", '["a stamp"]', '{"a stamp": 3}', '{"a stamp": {"road": 1}}']
)
def test_a_damaged_cache_is_ignored(camvid: Path, tmp_path: Path, text: str) -> None:
    split = camvid_split(camvid)
    counts = check_split(split)
    assert counts == [{0: 48}, {11: 48}]
    (cache,) = (tmp_path / "cache" / "seenet").iterdir()
    cache.write_text(text)
    assert check_split(split) == counts


def label_set(count: int, ignore: int = 255, name: str = "folder") -> LabelSet:
    return LabelSet(name, tuple(map(str, range(count))), voc_colours(count), ignore)


@pytest.mark.parametrize(
    ("ids", "labels", "cause"),
    [
        ([0, 255], label_set(2, 254), "looks like a 0/255 mask"),
        ([1, 2, 3], label_set(3), "looks like ids counted from 1, or void as 3"),
        ([0, 1, 4, 255], label_set(3, 254), "looks like void as 255"),
        ([7, 33, 255], label_set(19), "looks like Cityscapes' labelIds"),
        ([0, 9], label_set(3), "add the classes"),
        (
            [26, 26],
            CITYSCAPES19,
            r"ids 26 \(2 pixels\).*looks like labelIds; set data.ids=labelIds",
        ),
    ],
)
def test_likely_causes(ids: list[int], labels: LabelSet, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        check_ids(np.array([ids]), labels, Path("a.png"))


def test_stats_by_hand(camvid: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[:2], mask[5] = 3, 11
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=camvid), "train"))
    assert (stats.pixels[0], stats.pixels[3], stats.void) == (24, 16, 8 + 48)
    assert (stats.images[0], stats.images[3], stats.sizes) == (1, 1, {(6, 8): 2})
    # Frequencies 24/48 and 16/48, void in the denominator; their median is 20/48.
    weights = [stats.median_frequency()[index] for index in (0, 3, 5)]
    assert weights == pytest.approx([20 / 24, 20 / 16, 0])


def test_camvid_weights_are_the_published_ones(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "CamVid"
    (tmp_path / "train").mkdir()
    for name in (source / "train.txt").read_text().split():
        (tmp_path / "train" / f"{name}.png").symlink_to(source / "train" / f"{name}.webp")
    for name in ("trainannot", "train.txt"):
        (tmp_path / name).symlink_to(source / name)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=tmp_path), "train"))
    expected = [0.279, 0.202, 4.787, 0.149, 1.000, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    assert [round(weight, 3) for weight in stats.median_frequency()] == expected


COUNT = 7
STEMS = [str(index) for index in range(COUNT)]


class Group:
    """Ranks as threads of this process."""

    def __init__(self, world: int) -> None:
        self.world, self.own = world, threading.local()
        self.barrier = threading.Barrier(world, timeout=20)
        self.sent: dict[int, list[Any]] = {}

    def rank_and_world(self) -> tuple[int, int]:
        return self.own.rank, self.world

    def all_gather(self, values: list[Any]) -> list[Any]:
        self.sent[self.own.rank] = values
        self.barrier.wait()
        gathered = [one for rank in range(self.world) for one in self.sent[rank]]
        self.barrier.wait()
        return gathered

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """Return the result or the error of each rank's work."""

        def one(rank: int) -> Any:
            self.own.rank = rank
            try:
                return work(rank)
            except DataError as error:
                return error

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(one, range(self.world)))


@contextmanager
def grouped(monkeypatch: pytest.MonkeyPatch, world: int) -> Iterator[Group]:
    group = Group(world)
    with monkeypatch.context() as patch:
        for name in ("rank_and_world", "all_gather"):
            patch.setattr(scan, name, getattr(group, name))
        yield group


def write_split(root: Path) -> tuple[FileSplit, list[str]]:
    """Write pairs of 5 x (4 + index) pixels; return their split, and the stems it decodes."""
    decoded: list[str] = []

    def decode(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_ids(path)

    files = [(stem, root / "i" / f"{stem}.png", root / "m" / f"{stem}.png") for stem in STEMS]
    for index, (_, image, mask) in enumerate(files):
        picture(image, np.zeros((5, 4 + index, 3), np.uint8))
        picture(mask, np.full((5, 4 + index), index % 3, np.uint8))
    return file_split("mine/train", label_set(3), files, decode, empty=""), decoded


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_ranks_read_each_mask_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    split, decoded = write_split(tmp_path)
    expected = [{index % 3: 5 * (4 + index)} for index in range(COUNT)]
    with grouped(monkeypatch, world) as group:
        for _ in range(2):  # the second time from the cache
            assert group.run(lambda _: check_split(split)) == [expected] * world
        tables = group.run(lambda _: split_stats(split).table())
    assert sorted(decoded) == STEMS
    assert set(tables) == {split_stats(split).table()}


def test_ranks_with_different_caches_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines that each have a cache of their own."""
    split, decoded = write_split(tmp_path)
    whole, read_cache = check_split(split), scan._read_cache
    with grouped(monkeypatch, 2) as group:
        monkeypatch.setattr(
            scan, "_read_cache", lambda path: read_cache(path) if group.own.rank else {}
        )
        assert group.run(lambda _: check_split(split)) == [whole, whole]
    assert sorted(decoded) == sorted(STEMS * 2)


def test_copies_of_the_data_are_each_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank's own disk may hold a file that is damaged only there."""
    splits, decoded = zip(*(write_split(tmp_path / name) for name in ("a", "b")), strict=True)
    with grouped(monkeypatch, 2) as group:
        first, second = group.run(lambda rank: check_split(splits[rank]))
        assert first == second
        assert [sorted(stems) for stems in decoded] == [STEMS, STEMS]
        splits[1].masks[4].write_bytes(b"damaged")
        errors = group.run(lambda rank: check_split(splits[rank]))
    assert all(str(error).startswith(f"{splits[1].masks[4]}:") for error in errors)


@pytest.mark.parametrize("world", [2, 3])
def test_all_ranks_raise_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    split, _ = write_split(tmp_path)
    for index in (2, 5):
        picture(split.masks[index], np.full((5, 4 + index), 77, np.uint8))
    with grouped(monkeypatch, world) as group:
        errors = group.run(lambda _: check_split(split))
    assert [(str(error).partition(":")[0], error.kind, error.pixels) for error in errors] == [
        (str(split.masks[2]), "ids", 30)
    ] * world
