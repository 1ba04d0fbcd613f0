"""Compare what is read of a data set with the truth, and apply the cures that messages print."""

import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from seenet.core.settings import DataSettings
from seenet.data import Split, open_split
from tests.cli.commands import run
from tests.data.layouts import IGNORED, Truth

KEYS = {
    "images", "masks", "pair", "mask_suffix", "train", "val", "test", "unlabelled", "exif",
    "value_range", "channels", "classes", "ignore", "rim", "decode", "channel", "remap",
    "threshold", "tolerance", "ignore_colours", "remap_others",
}  # fmt: skip
"""Keys of a seenet.yaml."""
MANY = 2**20
"""More than any id."""


def opened(root: Path, which: str) -> tuple[Split, dict[str, int]]:
    """Open a split as training does; also return picture below the root -> its index."""
    split = open_split(DataSettings(kind="folder", root=root), which)
    paths = [split.paths(index)[0] for index in range(len(split))]
    below = [path.relative_to(root).as_posix() for path in paths if path is not None]
    assert len(set(below)) == len(split), "a picture twice"
    return split, {path: index for index, path in enumerate(below)}


def compare(root: Path, truth: Truth) -> None:
    """Require that all pictures are in the right split, and all masks are a relabelled truth."""
    parts = {which: opened(root, which) for which in ("train", "val")}
    if "test" in truth.split.values():
        parts["test"] = opened(root, "test")
    found = {which: set(indices) for which, (_, indices) in parts.items()}
    assert not found["train"] & found["val"]
    assert not truth.outside & (found["train"] | found["val"])
    if truth.split:
        assert found == _by_split(truth)
    else:
        assert found["train"] | found["val"] == set(truth.masks)
        assert abs(len(found["val"]) - 0.2 * len(truth.masks)) <= 1
    assert set(opened(root, "all")[1]) <= set(truth.masks)
    pairs = [
        (path, split.read(index))
        for split, indices in parts.values()
        for path, index in indices.items()
    ]
    compare_masks(dict(pairs), truth, parts["train"][0])


def _by_split(truth: Truth) -> dict[str, set[str]]:
    parts = set(truth.split.values())
    return {
        part: {path for path, split in truth.split.items() if split == part} for part in parts
    }  # fmt: skip


def compare_masks(
    read: dict[str, tuple[np.ndarray, np.ndarray]], truth: Truth, split: Split
) -> None:
    """Require one bijection of labels for all masks, and that names belong to their labels."""
    assert set(read) == set(truth.masks)
    joint: Counter[tuple[int, int]] = Counter()
    for path, (image, ids) in read.items():
        assert ids.shape == truth.masks[path].shape == image.shape[:2], path
        both = (truth.masks[path] - IGNORED) * MANY + ids
        values, counts = np.unique(both, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            joint[value // MANY + IGNORED, value % MANY] += count
    table: dict[int, int] = {}
    for (label, value), _ in joint.most_common():
        table.setdefault(label, value)
    assert len(set(table.values())) == len(table), f"labels are merged: {joint}"
    ignored = {label for label, value in table.items() if value == split.labels.ignore}
    assert ignored == {IGNORED} & set(table), f"other pixels are ignored: {joint}"
    expected = np.zeros(max(table) - IGNORED + 1, int)
    expected[np.array(list(table)) - IGNORED] = list(table.values())
    for path, (_, ids) in read.items():
        assert (expected[truth.masks[path] - IGNORED] != ids).mean() <= truth.slack, path
    _compare_names(table, truth, split)
    if truth.drawn:
        for path, (image, _) in read.items():
            labels = truth.masks[path]
            assert image[labels == 1, 0].mean() > 180 > 130 > image[labels != 1, 0].mean(), path
            assert image[labels == 2, 2].mean() > 180 > 130 > image[labels != 2, 2].mean(), path


def _compare_names(table: dict[int, int], truth: Truth, split: Split) -> None:
    names = list(split.labels.classes)
    assert [name for name in names if name in truth.classes.values()] == list(
        truth.classes.values()
    )
    for label, name in truth.classes.items():
        if label in table:
            assert names[table[label]] == name


def printed_commands(text: str) -> list[list[str]]:
    """Return the arguments of each `seenet data init` that a message prints."""
    quoted = re.findall(r"`seenet (data init [^`]+)`", text)
    lines = re.findall(r"^\s*(?:\$ )?seenet (data init .+)$", text, re.MULTILINE)
    return [shlex.split(command) for command in dict.fromkeys(quoted + lines)]


def printed_edits(text: str) -> dict[str, Any]:
    """Return the edits of seenet.yaml that a message prints between backticks, as one."""
    edits: dict[str, Any] = {}
    for quoted in re.findall(r"`([^`]+)`", text):
        try:
            edit = yaml.safe_load(quoted)
        except yaml.YAMLError:
            continue
        if isinstance(edit, dict) and edit.keys() <= KEYS:
            edits |= edit
    return edits


def edit_yaml(root: Path, edits: dict[str, Any]) -> None:
    """Change keys of seenet.yaml; None removes one."""
    path = root / "seenet.yaml"
    values = yaml.safe_load(path.read_text()) | edits
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False))


def forget(root: Path, before: set[Path]) -> None:
    """Remove what was written since the folder held these files and folders."""
    for path in sorted(set(root.rglob("*")) - before, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def check(capsys: pytest.CaptureFixture[str], root: Path) -> tuple[int, str]:
    """Return the exit code and all text of `seenet data check`."""
    code, out, err = run(capsys, "data", "check", "folder-lite0", f"data.root={root}")
    return code, out + err


def settle(capsys: pytest.CaptureFixture[str], root: Path, truth: Truth) -> str:
    """Require that `data init` leads to the truth, itself or by one of the commands it prints.

    Returns:
        All that it printed, without the name of the folder.
    """
    before = set(root.rglob("*"))
    code, out, err = run(capsys, "data", "init", root)
    text = out + err
    if code == 4 and truth.asks:
        assert not (root / "seenet.yaml").exists()
        choices = printed_commands(text)
        assert len(choices) >= 2, text
        assert any(_is_right(capsys, root, truth, choice, before) for choice in choices), text
    else:
        assert code == 0, text
        good(capsys, root, truth)
    return text.replace(str(root), "")


def _is_right(
    capsys: pytest.CaptureFixture[str],
    root: Path,
    truth: Truth,
    command: list[str],
    before: set[Path],
) -> bool:
    forget(root, before)
    code, out, err = run(capsys, *command)
    assert code in {0, 4}, out + err
    try:
        good(capsys, root, truth)
    except AssertionError:
        return False
    return code == 0


def good(capsys: pytest.CaptureFixture[str], root: Path, truth: Truth) -> None:
    """Require that `data check` finds no error, and what is read is the truth."""
    code, text = check(capsys, root)
    assert code == 0, text
    compare(root, truth)
    assert (root / "seenet-init" / "index.html").is_file()
    with Image.open(root / "seenet-init" / "pairs.png") as sheet:
        sheet.load()


def write(
    tmp_path: Path, generator: Callable[[Path, np.random.Generator], Truth], name: str = "my data"
) -> tuple[Path, Truth]:
    """Write a data set into a folder of this name."""
    root = tmp_path / name
    root.mkdir(parents=True)
    return root, generator(root, np.random.default_rng(22))
