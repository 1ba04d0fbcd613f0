"""What is said of ids, sizes and damaged files, what is remembered, and how processes of a group share the work."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_ids
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check import scan
from seenet.data.check.scan import check_split, split_stats
from seenet.data.check.stats import check_ids
from seenet.data.shapes import ShapesSplit
from seenet.data.split import FileSplit, file_split
from tests.data.pictures import picture


def test_check_names_ids_pixels_and_cause(camvid: Path) -> None:
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    check_split(split)
    check_split(split)  # remembered
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3] = 255
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    with pytest.raises(DataError, match=r"0001TP_1\.png: ids 255 \(3 pixels\).*masks of camvid11 hold no others"):
        check_split(split)
    picture(camvid / "trainannot" / "0001TP_1.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match="5 x 8 pixels, but its picture"):
        check_split(split)


@pytest.mark.parametrize(
    ("ids", "classes", "ignore", "cause"),
    [
        ([0, 255], 2, 254, "looks like a 0/255 mask"),
        ([1, 2, 3], 3, 255, "looks like ids counted from 1, or void as 3"),
        ([0, 1, 4, 255], 3, 254, "looks like void as 255"),
        ([7, 33, 255], 19, 255, "looks like Cityscapes' labelIds"),
        ([0, 9], 3, 255, "add the classes"),
    ],
)
def test_causes_in_a_folder_of_ones_own(ids: list[int], classes: int, ignore: int, cause: str) -> None:
    names = tuple(map(str, range(classes)))
    with pytest.raises(DataError, match=cause):
        check_ids(np.array([ids]), LabelSet("folder", names, tuple((index, 0, 0) for index in range(classes)), ignore), Path("a.png"))


def test_check_decodes_pictures_and_survives_its_own_cache(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "val")
    check_split(split)
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text("{broken")
    check_split(split)
    path = camvid / "val" / "0016E5_3.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"0016E5_3\.png: .*truncated"):
        check_split(split)


@pytest.mark.parametrize("text", ["", "[1, 2]", '["a stamp of the first format"]', '{"a stamp": 3}', '{"a stamp": {"road": 1}}'])
def test_cache_of_another_format_counts_as_empty(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(split, FileSplit)
    counts = check_split(split)
    assert counts == [{0: 48}, {11: 48}]
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text(text)
    assert check_split(split) == counts


def test_check_says_labelids(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png")
    picture(root / "gtFine" / "val" / "ulm" / "ulm_1_gtFine_labelTrainIds.png", np.full((6, 8), 26, np.uint8))
    split = open_split(DataSettings(kind="cityscapes", root=root, ids="trainIds"), "val")
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\).*looks like labelIds; set data.ids=labelIds"):
        check_split(split)
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\)"):
        split_stats(split)


LABELS = LabelSet("folder", ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (0, 0, 9)))
MANY = 7


class Group:
    """Ranks that are threads of this process: each must call `all_gather` as often as the others."""

    def __init__(self, world: int) -> None:
        self.world, self.own = world, threading.local()
        self.barrier = threading.Barrier(world, timeout=20)
        self.said: dict[int, list[Any]] = {}

    def rank_and_world(self) -> tuple[int, int]:
        return self.own.rank, self.world

    def all_gather(self, found: list[Any]) -> list[Any]:
        self.said[self.own.rank] = found
        self.barrier.wait()
        everybody = [one for rank in range(self.world) for one in self.said[rank]]
        self.barrier.wait()
        return everybody

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What each rank's work gives or raises."""

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
        patch.setattr(scan, "rank_and_world", group.rank_and_world)
        patch.setattr(scan, "all_gather", group.all_gather)
        yield group


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileSplit:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pairs(tmp_path / "data")


def pairs(root: Path) -> FileSplit:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    files = [(str(index), root / "images" / f"{index}.png", root / "masks" / f"{index}.png") for index in range(MANY)]
    for index, (_, image, mask) in enumerate(files):
        Image.new("RGB", (4 + index, 5)).save(image)
        Image.fromarray(np.full((5, 4 + index), index % 3, np.uint8)).save(mask)
    return file_split("mine/train", LABELS, files, read_ids, empty="")


def counted(split: FileSplit, decoded: list[str]) -> FileSplit:
    def decode(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_ids(path)

    return replace(split, decode=decode)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_each_mask_is_read_once(split: FileSplit, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    decoded: list[str] = []
    noting = counted(split, decoded)
    with grouped(monkeypatch, world) as group:
        found = group.run(lambda _: check_split(noting))
        assert sorted(decoded) == [str(index) for index in range(MANY)]
        assert all(counts == [{index % 3: 5 * (4 + index)} for index in range(MANY)] for counts in found)
        # Remembered by whoever looks again.
        assert group.run(lambda _: check_split(noting)) == found
        tables = group.run(lambda _: split_stats(noting).table())
    assert len(decoded) == MANY
    assert set(tables) == {split_stats(split).table()}


def test_what_one_remembers_is_not_enough_for_another(split: FileSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines that each have a cache of their own."""
    decoded: list[str] = []
    noting = counted(split, decoded)
    whole, remembered = check_split(noting), scan._remembered
    with grouped(monkeypatch, 2) as group:
        monkeypatch.setattr(scan, "_remembered", lambda store: remembered(store) if group.own.rank else {})
        assert group.run(lambda _: check_split(noting)) == [whole, whole]
    assert sorted(decoded) == sorted([str(index) for index in range(MANY)] * 2)


def test_copies_of_the_data_are_each_read_whole(split: FileSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of its own may hold a file that is damaged there alone."""
    decoded: list[list[str]] = [[], []]
    splits = [counted(one, names) for one, names in zip((split, pairs(tmp_path / "copy")), decoded, strict=True)]
    with grouped(monkeypatch, 2) as group:
        first, second = group.run(lambda rank: check_split(splits[rank]))
        assert first == second
        assert [sorted(names) for names in decoded] == [[str(index) for index in range(MANY)]] * 2
        splits[1].masks[4].write_bytes(b"damaged")
        errors = group.run(lambda rank: check_split(splits[rank]))
    assert [str(error).partition(":")[0] for error in errors] == [str(splits[1].masks[4])] * 2


def test_the_first_that_is_wrong_is_said_by_all(split: FileSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in (2, 5):
        Image.fromarray(np.full((5, 4 + index), 77, np.uint8)).save(split.masks[index])
    with pytest.raises(DataError) as alone:
        check_split(split)
    for world in (2, 3):
        with grouped(monkeypatch, world) as group:
            errors = group.run(lambda _: check_split(split))
        assert [(str(error), error.kind, error.pixels) for error in errors] == [(str(alone.value), "ids", 30)] * world


def test_drawn_scenes_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Noting(ShapesSplit):
        def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            drawn.append(index)
            return super().read(index)

    scenes = Noting("val", 5, 48)
    whole = split_stats(scenes).table()
    drawn.clear()
    with grouped(monkeypatch, 2) as group:
        assert group.run(lambda _: split_stats(scenes).table()) == [whole, whole]
    assert sorted(drawn) == list(range(len(scenes)))
