"""The recipes of docs/extending.md run as they stand there, from outside the package."""

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from seenet.cli import main
from seenet.core.files import bundled_models
from seenet.core.settings import OptimizerSettings
from seenet.model import create_model
from seenet.model.files import load_model
from seenet.training.optim import build_optimizer

SOURCES = Path(__file__).parents[1] / "src"
TEXT = (SOURCES.parent / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+\.\w+)`[^`]*:\n\n```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL))
SMALL = [
    "model.width=8", "model.p_out=16", "transforms.crop=64",
    "training.steps=2", "training.batch=2", "training.workers=0",
]  # fmt: skip
"""What training gets besides, so that it ends in seconds."""
COUNTS = {"train": 6, "val": 3}
PLAIN = """
from functools import partial
from torch.nn import functional as F
def make(num_classes, ignore):
    return partial(F.cross_entropy, ignore_index=ignore, reduction="none")
def silent(path, model, card):
    path.write_text(card.text())
def wrong(path, model, card):
    path.write_text(card.text())
    return lambda images: [[[[0.0] * images.shape[2]] * images.shape[1]] * 3] * len(images)
"""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def seenet(*arguments: str) -> tuple[int, str, str]:
    """Run a command line here; return its code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("a command line ends with its code")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, where all of its commands have been run."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in {**FILES, "plain.py": PLAIN}.items():
        (folder / name).write_text(text)
    draw = np.random.default_rng(0)
    for part, count in COUNTS.items():
        (folder / "data" / "fields" / part).mkdir(parents=True)
        for index in range(count):
            path = folder / "data" / "fields" / part / f"{index}.jpg"
            colours = draw.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((72, 64)).save(path)
            ids = draw.choice(np.array([0, 1, 2, 9], np.uint8), (8, 9)).repeat(8, 0).repeat(8, 1)
            Image.fromarray(ids).save(path.with_suffix(".png"))
    modules = [Path(name).stem for name in (*FILES, "plain.py")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        try:
            for _, *line in commands():
                code, out, err = seenet(*line, *(SMALL if line[0] == "train" else []))
                assert not code, f"seenet {shlex.join(line)}: {out[-2000:]}{err[-2000:]}"
            yield folder
        finally:
            for name in modules:
                sys.modules.pop(name, None)


def result(path: str) -> dict[str, Any]:
    return dict(json.loads(Path(path, "result.json").read_text()))


def losses(run: str) -> list[float]:
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def train(name: str, *settings: str) -> list[float]:
    code, _, err = seenet("train", "fields.yaml", *SMALL, *settings, "--out", f"runs/{name}")
    assert not code, err
    return losses(f"runs/{name}")


def test_the_page_is_read() -> None:
    files = {"fields.py", "fields.yaml", "focal.py", "wrong.py", "two_stages.py", "arrays.py"}
    assert FILES.keys() == files
    assert [line[1] for line in commands()].count("train") == 4
    assert {"data", "eval", "report", "export"} < {line[1] for line in commands()}


def test_the_data_sets_counts_are_those_of_its_masks(home: Path) -> None:
    masks = [np.array(Image.open(path)) for path in sorted(Path("data/fields/val").glob("*.png"))]
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=10)
    found = result("runs/fields/eval/val")
    assert [sum(row) for row in found["confusion"]] == counts[:3].tolist()
    assert (found["data"], found["split"], found["images"]) == ("fields", "val", COUNTS["val"])
    assert [one["name"] for one in found["classes"]] == ["soil", "crop", "weed"]
    assert counts[9] > 0
    matrix = np.array(found["confusion"])
    share = 1 - np.trace(matrix) / matrix.sum()
    assert result("runs/fields/wrong")["wrong:Wrong"] == {"share": pytest.approx(share)}
    page = Path("runs/fields/report/index.html").read_text()
    assert page.count("data:image") > 3
    assert "seenet eval runs/fields data.kind=fields:open_split" in page


def test_code_that_only_the_recipe_beside_the_model_names_is_not_run(home: Path) -> None:
    said = "recipe.yaml: data.kind=fields:open_split is code"
    for line in (
        ["eval", "runs/fields"],
        ["report", "runs/fields"],
        ["figure", "gap", "runs/fields"],
    ):
        sys.modules.pop("fields", None)
        code, _, err = seenet(*line)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err
        assert "fields" not in sys.modules
    code, _, err = seenet("eval", "runs/fields", "data.kind=fields:open_split", "--overwrite")
    assert code == 0, err


def test_a_changed_decoder_is_not_taken_for_the_one_that_was_checked(home: Path) -> None:
    """What is remembered of the masks holds for the file of `decode` as it was."""
    arguments = ("data", "stats", "fields.yaml", "data.kind=fields_too:open_split")
    source = Path("fields.py").read_text()
    Path("fields_too.py").write_text(source)
    _, before, err = seenet(*arguments)
    assert before, err
    Path("fields_too.py").write_text(source.replace("ids == 9", "(ids == 9) | (ids == 2)"))
    del sys.modules["fields_too"]
    try:
        _, after, _ = seenet(*arguments)
    finally:
        sys.modules.pop("fields_too", None)
    row = next(line for line in after.splitlines() if line.startswith("weed"))
    assert float(row.split()[1]) == 0 and after != before


def test_a_loss_of_each_pixel_that_is_cross_entropy_gives_ours(home: Path) -> None:
    own = train("plain", "loss.function=plain:make")
    assert own == pytest.approx(losses("runs/fields"), rel=1e-6)
    weights = ["loss.class_weights=[1, 2, 0.5]", "loss.auxiliary=0.4", "training.steps=1"]
    weighed = train("weighed", "loss.function=plain:make", *weights)
    assert weighed == pytest.approx(train("ours", *weights), rel=1e-6)
    assert weighed[0] != pytest.approx(own[0], rel=1e-3)
    # (1 - p)^2 is below 1 everywhere.
    assert 0 < losses("runs/focal")[0] < 0.95 * own[0]


BY_PICTURE = [
    "model.factory=two_stages:TwoStages", "loss.function=focal:make", "training.batch=4",
    "training.freeze_norms=true", "data.val=null", "optimizer.kind=sgd", "optimizer.rate=0.01",
]  # fmt: skip
"""A run whose norms look at no batch, so that a step in one piece is the step in several."""


def test_a_loss_knows_nothing_of_micro_batches(home: Path) -> None:
    whole = train("whole", *BY_PICTURE)
    weights = load_file("runs/whole/model.safetensors")
    for parts in (2, 4):
        found = train("parts", *BY_PICTURE, f"training.accumulate={parts}")
        assert found == pytest.approx(whole, rel=1e-5)
        found_weights = load_file("runs/parts/model.safetensors")
        # By the norm, since rounding carries single values over the bends of ReLU6.
        for key, value in weights.items():
            difference = (found_weights[key].float() - value.float()).norm()
            assert difference <= 3e-5 * value.float().norm(), key
        shutil.rmtree("runs/parts")


def test_the_decoder_stands_on_our_backbone(home: Path) -> None:
    bundled = load_model("camvid-lite0")
    made = create_model(factory="two_stages:TwoStages", num_classes=3, weights="camvid-lite0")
    weights, state = load_file(bundled_models()["camvid-lite0"]), made.state_dict()
    expected = {name: weights[name] for name in weights if name.startswith("backbone.body.")}
    found = {name: state[f"network.{name}"] for name in expected}
    torch.testing.assert_close(found, expected, check_dtype=False)
    assert len(found) > 100
    assert made.normalization == bundled.model.normalization
    rates: Counter[float] = Counter()
    for group in build_optimizer(made, OptimizerSettings(rate=0.1, head_factor=4)).param_groups:
        rates[group["lr"]] += sum(one.numel() for one in group["params"])
    of_backbone = sum(one.numel() for one in made.backbone.parameters())
    assert rates[0.1] == of_backbone
    assert rates.keys() == {0.1, 0.4} and rates[0.4] == 3 * (40 + 320) + 2 * 3
    saved = load_model("runs/two_stages", factory="two_stages:TwoStages")
    assert saved.model.normalization == bundled.model.normalization
    assert result("runs/two_stages/eval/val")["images"] == COUNTS["val"]


def test_the_exported_file_gives_the_models_scores(home: Path) -> None:
    """What runs the file reads it, and the export compares it with the model."""
    checked = json.loads(Path("fields.npz.check.json").read_text())
    assert checked["argmax_agreement"] >= 0.9999 and checked["runtime"] == "arrays:write"
    assert {(64, 72), (1, 1)} < {(row["height"], row["width"]) for row in checked["rows"]}


def test_an_own_format_is_held_to_the_model_or_said_to_be_unverified(home: Path) -> None:
    line = ["export", "runs/fields", "--images", "data/fields/val/0.jpg", "--out"]
    code, out, err = seenet(*line, "silent.txt", "--format", "plain:silent")
    assert (code, "not verified" in out) == (0, True), err
    assert json.loads(Path("silent.txt.check.json").read_text())["verified"] is False
    code, _, err = seenet(*line, "wrong.txt", "--format", "plain:wrong")
    assert (code, "a score differs" in err) == (6, True), err
    for format_, more, said in (
        ("plain:silent", ["--int8"], "--int8: not for plain:silent"),
        ("plain:silent", ["--plain"], "--plain: not for plain:silent"),
        ("plain:make", [], "--format plain:make: failed with TypeError"),
        ("plain:absent", [], "cannot be imported"),
        ("onx", [], "nearest: onnx"),
    ):
        code, _, err = seenet(*line, "wrong.txt", "--format", format_, *more)
        assert (code, said in err) == (2, True), err
    assert not list(Path().glob("*wrong.txt*"))
