"""From a folder as people bring it to what training reads, by the commands alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.commands import run
from tests.data import annotated, bands, beside, noise
from tests.data.layouts import IGNORED, LAYOUTS, Truth, fill, save
from tests.data.reading import (
    check,
    compare,
    edit_yaml,
    forget,
    good,
    opened,
    printed_commands,
    printed_edits,
    settle,
    write,
)

assert annotated and bands and beside and noise  # they enter their generators
Capsys = pytest.CaptureFixture[str]
DRIVES = [f"drive_{drive:04d}_{frame:06d}" for drive in range(10) for frame in range(3)]
PLACES = [f"{place}_{frame:04d}" for place in "abcdefghij" for frame in range(3)]
NUMBERS = [f"p{number:02d}" for number in range(50)]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * ("-renamed" in name)) for name in LAYOUTS],
)
def test_what_is_read_is_the_truth(tmp_path: Path, capsys: Capsys, name: str) -> None:
    root, truth = write(tmp_path, LAYOUTS[name])
    text = settle(capsys, root, truth)
    described = root / "seenet.yaml"
    for passed_over in truth.named:
        assert passed_over in text
        assert passed_over in described.read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grey_to_3999", {"value_range": [0, 4095]}),
        ("grey_to_65535", {"value_range": None}),
        ("pictures_without_masks", {"unlabelled": "skip"}),
        ("jpeg_disc", {"decode": "threshold"}),
        ("few_greys_jpeg", {"decode": "nearest"}),
        ("float_tiff", {"decode": "index"}),
        ("exif_6_mask_as_stored", {"exif": "ignore"}),
    ],
)
def test_what_is_written(
    tmp_path: Path, capsys: Capsys, name: str, expected: dict[str, Any]
) -> None:
    root, _ = write(tmp_path, LAYOUTS[name])
    assert run(capsys, "data", "init", root)[0] == 0
    found = yaml.safe_load((root / "seenet.yaml").read_text())
    assert {key: found.get(key) for key in expected} == expected


def test_the_rule_of_names_is_shown(tmp_path: Path, capsys: Capsys) -> None:
    root, _ = write(tmp_path, LAYOUTS["both_suffixes"])
    assert run(capsys, "data", "init", root)[0] == 0
    rule = yaml.safe_load((root / "seenet.yaml").read_text())["pair"]
    picture, _, mask = rule.partition(" -> ")
    assert picture.startswith("{id}_image.") and mask.startswith("{id}_annotation.")


def test_pictures_without_masks_are_counted(tmp_path: Path, capsys: Capsys) -> None:
    root, _ = write(tmp_path, LAYOUTS["pictures_without_masks"])
    _, out, err = run(capsys, "data", "init", root)
    assert "4" in (out + err).replace(str(root), "")


@pytest.mark.parametrize("name", ["jpeg_disc", "noisy_colours"])
def test_the_share_that_is_not_exact_is_said(tmp_path: Path, capsys: Capsys, name: str) -> None:
    root, _ = write(tmp_path, LAYOUTS[name])
    _, out, err = run(capsys, "data", "init", root)
    assert "%" in out + err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("colours_beside_ids", "--masks color"),
        ("colours_beside_ids", "--images images --masks labels"),
        ("field_of_view", "--masks 1st_manual"),
        ("palettes_that_differ", "--decode rgb"),
        ("jpeg_disc", "--decode threshold"),
        ("exif_3_mask_as_stored", "--exif ignore"),
        ("exif_3_mask_turned", "--exif apply"),
    ],
)
def test_options_decide(tmp_path: Path, capsys: Capsys, name: str, options: str) -> None:
    root, truth = write(tmp_path, LAYOUTS[name])
    code, out, err = run(capsys, "data", "init", root, *options.split())
    assert code == 0, out + err
    good(capsys, root, truth)


def test_a_second_proposal(tmp_path: Path, capsys: Capsys) -> None:
    """What the first one wrote is kept, and never taken for a part of the data."""
    root, truth = write(tmp_path, LAYOUTS["same_names"])
    assert run(capsys, "data", "init", root)[0] == 0
    kept = {path: path.read_text() for path in root.glob("*.txt")}
    assert run(capsys, "data", "init", root)[0] == 4
    (root / "seenet.yaml").unlink()
    settle(capsys, root, truth)
    assert kept and {path: path.read_text() for path in root.glob("*.txt")} == kept


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        ({"val.txt": "p01.jpg\np02\n"}, NUMBERS[:1] + NUMBERS[3:10], NUMBERS[1:3]),
        ({"val.txt": "p01\n", "train.txt": "images/p04.jpg\np00\n"}, ["p00", "p04"], ["p01"]),
        ({"val.txt": "p01\n", "test.txt": "p00\n"}, NUMBERS[2:10], ["p01"]),
    ],
)
def test_lists_are_used(
    tmp_path: Path, capsys: Capsys, lists: dict[str, str], train: list[str], val: list[str]
) -> None:
    root, _ = write(tmp_path, LAYOUTS["same_names"])
    for name, text in lists.items():
        (root / name).write_text(text)
    code, out, err = run(capsys, "data", "init", root)
    assert code == 0, out + err
    for part, names in (("train", train), ("val", val)):
        assert sorted(opened(root, part)[1]) == [f"images/{name}.jpg" for name in names]
    assert all((root / name).read_text() == text for name, text in lists.items())


def test_a_list_of_other_names_is_refused(tmp_path: Path, capsys: Capsys) -> None:
    root, _ = write(tmp_path, LAYOUTS["same_names"])
    (root / "val.txt").write_text("p01\nimages/other.jpg\n")
    code, _, err = run(capsys, "data", "init", root)
    assert code == 4 and "val.txt" in err and "other" in err
    assert not (root / "seenet.yaml").exists()


def test_single_pictures_in_other_places_do_not_matter(tmp_path: Path, capsys: Capsys) -> None:
    root, truth = write(tmp_path, LAYOUTS["same_names"])
    for name in ("preview.png", "preview.jpg", "docs/figure.jpg", ".hidden/p00.png"):
        save(root / name, np.full((9, 9, 3), 7, np.uint8))
    settle(capsys, root, truth)


@pytest.mark.parametrize("name", beside.REFUSED)
def test_what_is_not_read_is_named(tmp_path: Path, capsys: Capsys, name: str) -> None:
    generator, named = beside.REFUSED[name]
    root = tmp_path / "data"
    root.mkdir()
    generator(root, np.random.default_rng(0))
    before = set(root.rglob("*"))
    code, out, err = run(capsys, "data", "init", root)
    assert code == 4
    assert set(root.rglob("*")) == before
    for text in named:
        assert text in (out + err).replace(str(root), "")


def test_masks_of_one_class_are_not_good(tmp_path: Path, capsys: Capsys) -> None:
    root = tmp_path / "data"
    (named,) = noise.all_zero(root, np.random.default_rng(0))
    code, out, err = run(capsys, "data", "init", root)
    text = out + err
    if code == 0:
        code, text = check(capsys, root)
    assert code in {4, 6}
    assert named in text.replace(str(root), "")


def test_all_bad_files_are_named_in_one_round(tmp_path: Path, capsys: Capsys) -> None:
    root = tmp_path / "data"
    named = noise.without_content(root, np.random.default_rng(0))
    code, out, err = run(capsys, "data", "init", root)
    text = out + err
    if code == 0:
        code, text = check(capsys, root)
    assert code in {4, 6}
    assert len(named) == 5
    for name in named:
        assert name in text


@pytest.mark.parametrize(
    ("names", "options", "val", "test"),
    [
        (NUMBERS[:30], "", 6, 0),
        (NUMBERS[:48], "", 10, 0),
        (NUMBERS[:48], "--val 0.25", 12, 0),
        (NUMBERS[:30], "--test 0.2", 6, 6),
        (DRIVES, "", 6, 0),
        (PLACES, "--test 0.2", 6, 6),
    ],
)
def test_shares_are_exact(
    tmp_path: Path, capsys: Capsys, names: list[str], options: str, val: int, test: int
) -> None:
    lists = []
    for copy in ("a", "b"):
        root = tmp_path / copy
        truth = beside.divided(names=names)(root, np.random.default_rng(0))
        code, out, err = run(capsys, "data", "init", root, *options.split())
        assert code == 0, out + err
        parts = ["train", "val", "test"] if test else ["train", "val"]
        found = [set(opened(root, part)[1]) for part in parts]
        lists.append([(root / f"{part}.txt").read_text() for part in parts])
        assert [len(part) for part in found[1:]] == [val, *([test] if test else [])]
        assert len(set.union(*found)) == sum(map(len, found)) == len(truth.masks)
        assert set.union(*found) == set(truth.masks)
        if "_" in names[0]:
            drives = [{Path(path).stem.rpartition("_")[0] for path in part} for part in found]
            assert len(set.union(*drives)) == sum(map(len, drives)), "a drive in two parts"
    assert lists[0] == lists[1]


def test_a_rare_class_is_in_both_parts(tmp_path: Path, capsys: Capsys) -> None:
    root = tmp_path / "data"
    truth = beside.divided(names=NUMBERS, rare=5)(root, np.random.default_rng(0))
    assert run(capsys, "data", "init", root)[0] == 0
    held = {path for path, mask in truth.masks.items() if (mask == 2).any()}
    assert len(held & set(opened(root, "val")[1])) == 1


@pytest.mark.parametrize(
    ("count", "val"), [(30, "08 11 17 28"), (48, "08 11 17 28 33 37 38 44")]
)  # fmt: skip
def test_a_written_share_keeps_its_split(tmp_path: Path, count: int, val: str) -> None:
    fill(tmp_path, np.random.default_rng(0), count=count)
    (tmp_path / "seenet.yaml").write_text("decode: index\nval: 0.2\nclasses: [a, b, c]\n")
    expected = {f"images/p{number}.jpg" for number in val.split()}
    assert set(opened(tmp_path, "val")[1]) == expected
    assert len(opened(tmp_path, "train")[1]) == count - len(expected)


def ignore_zero(truth: Truth) -> Truth:
    """Ignore what is 0."""
    truth.masks = {
        path: np.where(mask == 0, IGNORED, mask.astype(int)) for path, mask in truth.masks.items()
    }
    return truth


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        (
            "float_tiff",
            {"decode": "rgb", "classes": {"a": [0, 0, 0], "b": [1, 1, 1], "c": [2, 2, 2]}},
        ),
        ("no_data_9999", {"decode": "index", "remap": None}),
        ("ids_from_minus_1", {"decode": "index", "remap": None}),
        ("sparse_ids", {"decode": "index", "remap": None}),
        ("exif_6_mask_as_stored", {"exif": "apply"}),
        ("jpeg_disc", {"decode": "index", "threshold": None}),
        ("noisy_colours", {"tolerance": None}),
        ("grey_to_3999", {"value_range": None}),
        ("pictures_without_masks", {"unlabelled": None, "train": None, "val": 0.2}),
        ("same_names", {"ignore": 0, "classes": ["disc", "ring"]}),
    ],
)
def test_cures_that_are_printed_work(
    tmp_path: Path, capsys: Capsys, name: str, edit: dict[str, Any]
) -> None:
    """A description that is wrong in one place is right after the edits of the message."""
    root, truth = write(tmp_path, LAYOUTS[name])
    assert run(capsys, "data", "init", root)[0] == 0
    edit_yaml(root, edit)
    if "ignore" in edit:
        truth = ignore_zero(truth)
    code, text = check(capsys, root)
    assert code != 0, "the error is not found"
    edits = printed_edits(text)
    commands = printed_commands(text)
    assert edits or commands, text
    if edits:
        edit_yaml(root, edits)
    else:
        (root / "seenet.yaml").unlink()
        assert run(capsys, *commands[0])[0] == 0
    code, text = check(capsys, root)
    assert code == 0, text
    compare(root, truth)


@pytest.mark.parametrize("name", ["field_of_view", "palettes_that_differ", "exif_3_mask_turned"])
def test_questions_name_commands_that_work(tmp_path: Path, capsys: Capsys, name: str) -> None:
    """Where it asks, each command that it prints writes a description."""
    root, _ = write(tmp_path, LAYOUTS[name])
    before = set(root.rglob("*"))
    code, out, err = run(capsys, "data", "init", root)
    for command in printed_commands(out + err) if code == 4 else ():
        assert run(capsys, *command)[0] == 0
        assert (root / "seenet.yaml").is_file()
        forget(root, before)
