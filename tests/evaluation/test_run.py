import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.settings import DataSettings
from seenet.data.cityscapes import CITYSCAPES19
from seenet.evaluation import run
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.iou import iou_scores
from seenet.evaluation.run import data_settings, default_out, run_evaluation
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, MemorySplit, random_split, shown
from tests.prediction.doubles import TinyNet

RECIPE = "data: {kind: camvid, root: data/camvid, val: test}\ntransforms: {crop: 32}\ntraining: {steps: 1, batch: 1}\n"


def loading(labels: LabelSet, loaded: list[Path] | None = None):
    """In place of `open_predictor`: a network of one convolution for these labels; notes what was to be loaded."""

    def open_predictor(path, options):
        if loaded is not None:
            loaded.append(path)
        return Predictor(
            TinyNet(labels.num_classes), labels, device="cpu", precision=options.precision, scales=options.scales, flip=options.flip,
            tiling=options.tiling, info={"file": str(path), "sha256": "ab"},
        )  # fmt: skip

    return open_predictor


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """A run with a recipe; the model and the data are doubles."""
    asked = SimpleNamespace(splits=[])
    folder = tmp_path / "runs/street"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "model.safetensors").write_bytes(b"")
    split = random_split(6)

    def open_split(settings: DataSettings, which: str):
        asked.splits.append((settings.kind, which))
        return split

    monkeypatch.setattr(run, "open_split", open_split)
    monkeypatch.setattr(run, "open_predictor", loading(LABELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "asked", asked, raising=False)
    return folder


def test_a_run_is_scored_on_its_own_data(model):
    report = run_evaluation(model, command="seenet eval runs/street")
    assert run.asked.splits == [("camvid", "test")]
    assert report.out == model / "eval/test"
    written = sorted(
        path.relative_to(report.out).as_posix() for path in report.out.rglob("*") if path.is_file()
    )
    assert written[:1] == ["confusion.png"]
    assert written[-1] == "result.json"
    assert [name.split("-")[:2] for name in written[1:-1]] == [
        [f"images/{kind}", str(n)] for kind in ("best", "worst") for n in (1, 2, 3, 4)
    ]
    assert written[1].endswith(f"-drive_{report.evaluation.best(1)[0].index:03d}.jpg")
    for name in written[1:-1]:
        with Image.open(report.out / name) as image:
            assert image.format == "JPEG"
    result = json.loads((report.out / "result.json").read_text())
    assert result == report.result
    assert (
        result["miou"] == evaluate(Predictor(TinyNet(), LABELS, device="cpu"), random_split(6)).miou
    )
    assert result["loss"] > 0
    assert result["command"] == "seenet eval runs/street"


def test_results_are_not_overwritten_unless_told(model):
    report = run_evaluation(model)
    before = (report.out / "result.json").read_bytes()
    with pytest.raises(DataError, match="--overwrite") as caught:
        run_evaluation(model, flip=True)
    assert caught.value.exit_code == 4
    assert (report.out / "result.json").read_bytes() == before
    (report.out / "images/worst-9-old.jpg").write_bytes(b"")
    (report.out / "images/mine.jpg").write_bytes(b"")
    run_evaluation(model, flip=True, overwrite=True)
    assert json.loads((report.out / "result.json").read_text())["flip"] is True
    assert not (report.out / "images/worst-9-old.jpg").exists()
    assert (report.out / "images/mine.jpg").exists()


def test_pictures_of_ones_own_are_not_taken_for_old_ones(model):
    mine = model / "eval/test/images/best-1-mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"best-1-mine\.jpg: exists already; use --overwrite"):
        run_evaluation(model)
    assert mine.read_bytes() == b"mine"


def test_keys_longer_than_file_names(model, monkeypatch):
    monkeypatch.setattr(
        MemorySplit, "key", lambda self, index: "/".join(["deep" * 20] * 4) + str(index)
    )
    report = run_evaluation(model)
    assert len(list((report.out / "images").iterdir())) == 8
    assert report.result["per_image"][0]["key"].count("/") == 3


def test_a_full_disk_is_one_line_and_loses_nothing(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            run,
            "write_text",
            lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        with pytest.raises(
            DataError,
            match=r"eval/test: cannot be written \(No space left on device\); make room and run it again",
        ):
            run_evaluation(model)
    assert (model / "eval/test/partial").is_dir()
    assert run_evaluation(model).result["images"] == 6


def test_no_result_file_when_it_fails_half_way(model, monkeypatch):
    monkeypatch.setattr(
        run, "confusion_figure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(model)
    assert not (model / "eval/test/result.json").exists()
    assert not list((model / "eval").rglob(".*"))


@pytest.mark.parametrize("place", ["evaluate", "confusion_figure", "write_text"])
def test_an_interrupted_call_goes_on(model, monkeypatch, place):
    """Cut before the first picture, before the figure, and between the figure and the result file."""
    whole = run_evaluation(model, out=model / "whole")
    counted = []
    honest = Predictor.row_chunks
    monkeypatch.setattr(
        Predictor, "row_chunks", lambda self, *rest: counted.append(0) or honest(self, *rest)
    )
    with monkeypatch.context() as patch:
        patch.setattr(run, place, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_evaluation(model)
    out, panels = model / "eval/test", 8
    assert not (out / "result.json").exists()
    assert (out / "confusion.png").exists() == (place == "write_text")
    assert len(counted) == (0 if place == "evaluate" else 6 + panels)
    counted.clear()
    assert run_evaluation(model).result == whole.result
    assert len(counted) == (6 if place == "evaluate" else 0) + panels
    assert sorted(path.name for path in out.iterdir()) == ["confusion.png", "images", "result.json"]


@pytest.mark.parametrize(
    "code",
    [
        {"factory": "mine:build"},
        {"metrics": ["seenet.evaluation.metrics.conventions:Conventions"]},
        {"overrides": ["data.kind=mine:open"]},
    ],
)
def test_what_the_users_own_code_counts_is_counted_anew(model, monkeypatch, code):
    monkeypatch.setattr(
        run, "confusion_figure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(model, **code)
    assert not (model / "eval/test/partial").exists()


@pytest.mark.parametrize(("void", "rim"), [(True, True), (True, False), (False, True)])
def test_a_trimap_of_pictures_of_ones_own(tmp_path, monkeypatch, void, rim):
    """`rim: true` gives folders a trimap; without an ignored pixel it is refused before the model is looked at."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 1
    if void:
        mask[2] = 255
    for place, array in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", mask)):
        (tmp_path / place).mkdir()
        Image.fromarray(array).save(tmp_path / place / "a.png")
    (tmp_path / "seenet.yaml").write_text(
        "decode: index\nclasses: [ground, thing]\n" + ("rim: true\n" if rim else "")
    )
    (tmp_path / "net.safetensors").write_bytes(b"")
    loaded: list[Path] = []
    monkeypatch.setattr(
        run,
        "open_predictor",
        loading(LabelSet("folder", ("ground", "thing"), voc_colours(2), rim=rim), loaded),
    )
    data = ["data.kind=folder", f"data.root={tmp_path}"]

    def score(boundary="trimap"):
        return run_evaluation(
            tmp_path / "net.safetensors",
            None,
            data,
            split="all",
            out=tmp_path / boundary,
            boundary=boundary,
        ).result

    if void and rim:
        assert list(score()["boundary"]["miou"]) == [str(width) for width in run.WIDTHS]
        assert score("auto")["boundary"]["kind"] == "trimap"
        return
    with pytest.raises(
        DataError,
        match=r"no pixel of 1 masks is ignored \(255\)"
        if rim
        else "set `rim: true` in seenet.yaml",
    ):
        score()
    assert bool(loaded) != rim


def test_a_file_where_the_folder_should_be(model, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="another --out"):
        run_evaluation(model, out=tmp_path / "taken")


def test_which_data(model, tmp_path):
    path, alone = model / "model.safetensors", tmp_path / "camvid-lite0.safetensors"
    assert data_settings(path, None, []).val == "test"
    assert data_settings(path, None, ["data.val=train"]).val == "train"
    (tmp_path / "other.yaml").write_text(RECIPE.replace("camvid,", "voc,"))
    assert data_settings(path, tmp_path / "other.yaml", []).kind == "voc"
    only = data_settings(alone, None, ["data.kind=camvid", "data.root=here"])
    assert (only.kind, only.root, only.val) == ("camvid", Path("here"), "val")
    with pytest.raises(UsageError, match=r"data\.kind=camvid data\.root=PATH"):
        data_settings(alone, None, [])
    with pytest.raises(UsageError, match="kind"):
        data_settings(alone, None, ["data.kind=camwid", "data.root=here"])


def test_data_that_is_code_is_named_by_whom_it_is_run(model, tmp_path):
    path, own = model / "model.safetensors", tmp_path / "mine.yaml"
    own.write_text(RECIPE.replace("camvid,", "'mine:open',"))
    (model / "recipe.yaml").write_text(own.read_text() + "loss: {function: 'mine:make'}\n")
    for overrides in ([], ["data.val=train"]):
        with pytest.raises(UsageError, match=r"recipe\.yaml: data\.kind=mine:open is code"):
            data_settings(path, None, overrides)
    for recipe, overrides in (
        (None, ["data.kind=mine:open"]),
        (own, []),
        (model / "recipe.yaml", []),
    ):
        assert data_settings(path, recipe, overrides).kind == "mine:open"
    assert data_settings(path, None, ["data.kind=voc"]).kind == "voc"


def test_where_results_go(model, tmp_path):
    assert default_out(model / "model.safetensors", "val") == model / "eval/val"
    assert default_out(model / "model-last.safetensors", "val") == model / "eval/model-last-val"
    assert default_out(tmp_path / "camvid-lite0.safetensors", "lists/my.txt") == Path(
        "evaluations/camvid-lite0-my"
    )


def test_the_table_says_every_class_and_mean(model):
    report = run_evaluation(model, boundary="trimap")
    text = shown(report.evaluation, report.result)
    for name in (*LABELS.classes, "mean of 3", "pixel accuracy", "loss", "trimap mIoU"):
        assert name in text
    assert f"{100 * report.result['miou']:.1f}" in text
    assert f"{100 * report.result['boundary']['miou']['1']:.1f}" in text


def test_mean_over_some_classes_leaves_the_matrix_whole(model):
    plain = run_evaluation(model).result
    result = run_evaluation(model, mean_over=["tree", "sky", "tree"], overwrite=True).result
    over = result.pop("mean_over")
    assert plain.pop("mean_over") is None
    assert result == plain
    iou = iou_scores(np.array(result["confusion"]))["iou"]
    assert over["classes"] == ["sky", "tree"]
    assert over["miou"] == pytest.approx((iou[0] + iou[2]) / 2)
    assert over["miou_interval"]["low"] < over["miou"] < over["miou_interval"]["high"]
    assert over["absent"] == []


def test_mean_over_an_unknown_class(model):
    with pytest.raises(UsageError, match=r"class 'raod': not in toy; nearest: road") as caught:
        run_evaluation(model, mean_over=["sky", "raod"])
    assert caught.value.exit_code == 2
    assert not (model / "eval").exists()


def test_more_measures_change_no_number_and_are_shown(model):
    plain = run_evaluation(model).result
    report = run_evaluation(
        model, widths=(2, 7), boundary_iou=True, conventions=True, mean_over=["sky"], overwrite=True
    )
    result = report.result
    assert list(result["boundary"]["miou"]) == ["2", "7"]
    new = {"boundary", "mean_over", "boundary_iou", "conventions"}
    assert {key: value for key, value in result.items() if key not in new} == {
        k: v for k, v in plain.items() if k not in new
    }
    text = shown(report.evaluation, report.result)
    interval = result["miou_interval"]
    for words in (
        f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}", "mIoU over sky: ", "Boundary IoU", "mIoU by convention",
        f"{100 * result['boundary_iou']['classes']['road']:.1f}", f"{100 * result['conventions'][-1]['miou']:.1f}",
    ):  # fmt: skip
        assert words in text


def test_cityscapes_has_its_own_table(model, monkeypatch):
    split = random_split(2, labels=CITYSCAPES19)
    monkeypatch.setattr(run, "open_split", lambda *_: split)
    monkeypatch.setattr(run, "open_predictor", loading(CITYSCAPES19))
    report = run_evaluation(model)
    result = report.result
    assert result["cityscapes"]["iou_class"] == result["miou"]
    text = shown(report.evaluation, report.result)
    for words in ("vehicle", "mean, category", "no iIoU: 2 of 2 pictures"):
        assert words in text


def test_absent_classes_are_named_in_the_table(model):
    report = run_evaluation(model)
    result = report.result
    result["classes"][2].update(iou=None, accuracy=None, dice=None, pixels=0)
    result["absent"] = ["tree"]
    text = shown(report.evaluation, report.result)
    assert "mean of 2" in text
    assert "absent, left out of the mean: tree" in text
