"""Processes of a group share the scan of a split: each file is read once, and what is wrong is said by all of them."""

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
from seenet.data import check, together
from seenet.data.check import check_split
from seenet.data.shapes import ShapesSplit
from seenet.data.split import FileSplit, file_split
from seenet.data.stats import split_stats

LABELS = LabelSet("folder", ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (0, 0, 9)))
MANY = 7


class Group:
    """Ranks that are threads of this process: each must call `listed` as often as the others."""

    def __init__(self, world: int) -> None:
        self.world, self.own = world, threading.local()
        self.barrier = threading.Barrier(world, timeout=20)
        self.said: dict[int, list[Any]] = {}

    def ranks(self) -> tuple[int, int]:
        return self.own.rank, self.world

    def listed(self, found: list[Any]) -> list[Any]:
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
        for module in (check, together):
            patch.setattr(module, "ranks", group.ranks)
            patch.setattr(module, "listed", group.listed)
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
    whole, remembered = check_split(noting), check._remembered
    with grouped(monkeypatch, 2) as group:
        monkeypatch.setattr(check, "_remembered", lambda store: remembered(store) if group.own.rank else {})
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
