import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.data.cityscapes import CITYSCAPES19
from seenet.evaluation import run
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.run import data_settings, default_out, run_evaluation
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, MemorySplit, random_split, shown, tiny

RECIPE = (
    "data: {kind: camvid, root: data/camvid, val: test}\n"
    "transforms: {crop: 32}\n"
    "training: {steps: 1, batch: 1}\n"
)
WRITTEN = ["confusion.png", "images", "result.json"]


def use(monkeypatch: pytest.MonkeyPatch, split: MemorySplit) -> None:
    """Replace the data, and the predictor by one that reads no file."""

    def open_predictor(path, options):
        info = {"file": str(path), "sha256": "ab"}
        return tiny(split.labels, flip=options.flip, info=info)

    monkeypatch.setattr(run, "open_split", lambda settings, which: split)
    monkeypatch.setattr(run, "open_predictor", open_predictor)


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """Return a run folder with a recipe; predictor and data are doubles."""
    folder = tmp_path / "runs/street"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "model.safetensors").write_bytes(b"")
    use(monkeypatch, random_split(6))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_is_scored_on_its_own_data(model, monkeypatch):
    opened, deep = Mock(return_value=random_split(6)), "deep" * 60
    monkeypatch.setattr(run, "open_split", opened)
    # A key may be longer than a file name.
    monkeypatch.setattr(MemorySplit, "key", lambda self, index: deep if index else "drive/0")
    report = run_evaluation(model, command="seenet eval runs/street")
    assert (opened.call_args.args[0].kind, opened.call_args.args[1]) == ("camvid", "test")
    assert report.out == model / "eval/test"
    assert sorted(path.name for path in report.out.iterdir()) == WRITTEN
    drawn = sorted((report.out / "images").iterdir())
    assert [path.name.split("-")[:2] for path in drawn] == [
        [kind, str(place)] for kind in ("best", "worst") for place in (1, 2, 3, 4)
    ]
    assert any(path.stem.endswith("-drive_0") for path in drawn)
    for path in (report.out / "confusion.png", *drawn):
        Image.open(path).verify()
    result = json.loads((report.out / "result.json").read_text())
    assert result == report.result
    assert result["miou"] == evaluate(tiny(), random_split(6)).miou
    assert result["loss"] > 0
    assert result["command"] == "seenet eval runs/street"
    assert result["per_image"][1]["key"] == deep


@pytest.mark.parametrize("name", ["images/best-1-mine.jpg", "confusion.png"])
def test_files_of_the_user_are_not_replaced(model, name):
    mine = model / "eval/test" / name
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(DataError, match=rf"{mine.name}.*--overwrite"):
        run_evaluation(model)


@pytest.mark.parametrize(
    ("place", "effect", "error"),
    [
        ("evaluate", KeyboardInterrupt, KeyboardInterrupt),
        ("confusion_figure", KeyboardInterrupt, KeyboardInterrupt),
        ("write_text", KeyboardInterrupt, KeyboardInterrupt),
        ("write_text", OSError(28, "No space left on device"), DataError),
    ],
)
def test_an_interrupted_call_continues(model, monkeypatch, place, effect, error):
    """Interrupted before the first image, before the figure, and before the result file."""
    whole = run_evaluation(model, out=model / "whole")
    predicted = Mock(side_effect=Predictor.row_chunks)
    monkeypatch.setattr(Predictor, "row_chunks", lambda *arguments: predicted(*arguments))
    with monkeypatch.context() as patch:
        patch.setattr(run, place, Mock(side_effect=effect))
        with pytest.raises(error):
            run_evaluation(model)
    out, images, panels = model / "eval/test", 6, 8
    assert not (out / "result.json").exists()
    assert not list(out.rglob(".*"))
    assert (out / "confusion.png").exists() == (place == "write_text")
    assert predicted.call_count == (0 if place == "evaluate" else images + panels)
    predicted.reset_mock()
    assert run_evaluation(model).result == whole.result
    assert predicted.call_count == (images if place == "evaluate" else 0) + panels
    assert sorted(path.name for path in out.iterdir()) == WRITTEN


def test_results_are_replaced_only_with_overwrite(model):
    out = run_evaluation(model).out
    before = (out / "result.json").read_bytes()
    with pytest.raises(DataError, match=r"result\.json.*--overwrite"):
        run_evaluation(model, flip=True)
    assert (out / "result.json").read_bytes() == before
    for name in ("worst-9-old.jpg", "mine.jpg"):
        (out / "images" / name).write_bytes(b"")
    run_evaluation(model, flip=True, overwrite=True)
    assert json.loads((out / "result.json").read_text())["flip"] is True
    assert not (out / "images/worst-9-old.jpg").exists()
    assert (out / "images/mine.jpg").exists()


@pytest.mark.parametrize(
    "code",
    [
        {"factory": "mine:build"},
        {"metrics": ["seenet.evaluation.metrics.conventions:Conventions"]},
        {"overrides": ["data.kind=mine:open"]},
    ],
)
def test_counts_by_the_users_code_are_not_kept(model, monkeypatch, code):
    monkeypatch.setattr(run, "confusion_figure", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(model, **code)
    assert not (model / "eval/test/partial").exists()


def test_data_of_the_run_the_recipe_or_the_overrides(model, tmp_path):
    path, alone = model / "model.safetensors", tmp_path / "camvid-lite0.safetensors"
    assert data_settings(path, None, []).val == "test"
    assert data_settings(path, None, ["data.val=train"]).val == "train"
    (tmp_path / "other.yaml").write_text(RECIPE.replace("camvid,", "voc,"))
    assert data_settings(path, tmp_path / "other.yaml", []).kind == "voc"
    only = data_settings(alone, None, ["data.kind=camvid", "data.root=here"])
    assert (only.kind, only.root, only.val) == ("camvid", Path("here"), "val")
    for overrides in ([], ["data.kind=camwid", "data.root=here"]):
        with pytest.raises(UsageError, match="kind"):
            data_settings(alone, None, overrides)


def test_data_that_is_code_is_named_by_whom_it_is_run(model):
    path, recipe = model / "model.safetensors", model / "recipe.yaml"
    recipe.write_text(RECIPE.replace("camvid,", "'mine:open',") + "loss: {function: 'mine:make'}\n")
    for overrides in ([], ["data.val=train"]):
        with pytest.raises(UsageError, match=r"recipe\.yaml: data\.kind=mine:open is code"):
            data_settings(path, None, overrides)
    assert data_settings(path, None, ["data.kind=mine:open"]).kind == "mine:open"
    assert data_settings(path, recipe, []).kind == "mine:open"
    assert data_settings(path, None, ["data.kind=voc"]).kind == "voc"


@pytest.mark.parametrize(
    ("model_file", "split", "folder"),
    [
        ("runs/street/model.safetensors", "val", "runs/street/eval/val"),
        ("runs/street/model-last.safetensors", "val", "runs/street/eval/model-last-val"),
        ("camvid-lite0.safetensors", "lists/my.txt", "evaluations/camvid-lite0-my"),
    ],
)
@pytest.mark.usefixtures("model")
def test_default_output_folder(model_file, split, folder):
    assert default_out(Path(model_file), split) == Path(folder)


def test_further_metrics_change_no_score_and_are_shown(model):
    plain = run_evaluation(model).result
    further = {"boundary_iou": True, "conventions": True, "mean_over": ["tree", "sky", "tree"]}
    report = run_evaluation(model, boundary="trimap", widths=(2, 7), overwrite=True, **further)
    result, text = report.result, shown(report.evaluation, report.result)
    changed = {key for key in result if key not in plain or result[key] != plain[key]}
    assert changed == {"boundary", *further}
    over, iou = result["mean_over"], [entry["iou"] for entry in result["classes"]]
    assert (over["classes"], over["absent"]) == (["sky", "tree"], [])
    assert over["miou"] == pytest.approx((iou[0] + iou[2]) / 2)
    assert over["miou_interval"]["low"] < over["miou"] < over["miou_interval"]["high"]
    for words in (*LABELS.classes, "mean of 3", "loss", "trimap mIoU", "mIoU over sky, tree: "):
        assert words in text
    for share in (
        result["miou"],
        result["miou_interval"]["low"],
        over["miou"],
        *result["boundary"]["miou"].values(),
        result["boundary_iou"]["classes"]["road"],
        result["conventions"][-1]["miou"],
    ):
        assert f"{100 * share:.1f}" in text


def test_cityscapes_labels_have_their_own_table(model, monkeypatch):
    use(monkeypatch, random_split(2, labels=CITYSCAPES19))
    report = run_evaluation(model)
    assert report.result["cityscapes"]["iou_class"] == report.result["miou"]
    text = shown(report.evaluation, report.result)
    for words in ("vehicle", "mean, category", "no iIoU: 2 of 2 images"):
        assert words in text
