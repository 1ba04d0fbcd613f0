import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.recipe_files import dump, parse_recipe
from seenet.core.settings import Recipe
from seenet.data import open_split
from seenet.data.shapes import SHAPES
from seenet.evaluation.confusion import ImageScore
from seenet.evaluation.evaluator import Evaluation, evaluate
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from seenet.report import page
from seenet.report.page import write_report
from tests.prediction.bundles.red import card, write_red
from tests.report.pages import Page


def make_recipe(val: str = "val") -> Recipe:
    return parse_recipe(
        "description: 'a <b>bold</b> & hostile one'\n"
        f"data: {{kind: shapes, size: 48, count: 20, val: {val}}}\n"
        "model: {backbone: resnet18, output_stride: 32, width: 4, p_out: 8}\n"
        "transforms: {crop: 32}\ntraining: {steps: 40, batch: 2}\n",
        "test",
        [],
    )


def make_run(run: Path, val: str = "val", labels: LabelSet = SHAPES) -> Path:
    """Write an untrained run; with `val` and SHAPES it has scores of five images."""
    recipe = make_recipe(val)
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(dump(recipe))
    model = create_model(**recipe.model.model_dump(), num_classes=labels.num_classes)
    save_model(run / "model.safetensors", model, labels, notes={"step": 30, "version": "0.0.9"})
    speed = {"images_per_s": 3.0, "memory_mib": 900}
    entries = [{"step": s, "loss": 2 / s, "rate": 0.01 / s, **speed} for s in range(1, 41)]
    if val != "null" and labels is SHAPES:
        entries.append({"step": 40, "val": {"miou": 0.4567, "loss": 1.5}})
        predictor, split = Predictor(model, labels, device="cpu"), open_split(recipe.data, val)
        result = evaluate(predictor, split, indices=range(5), loss=True).result()
        (run / "val.json").write_text(json.dumps({**result, "step": 30}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return run


def write_val(run: Path, labels: LabelSet) -> None:
    """Write scores in which class 1 has no truth and the last class is absent."""
    count = labels.num_classes
    matrix = np.random.default_rng(0).integers(1, 9, (count, count)) + 50 * np.eye(count, dtype=int)
    matrix[[1, -1]] = matrix[:, -1] = 0
    cells = np.flatnonzero(matrix)
    scores = [ImageScore(0, cells, matrix.ravel()[cells])]
    settings = {"scales": [1.0], "flip": False, "precision": "fp32"}
    found = Evaluation("toy/val", ["nowhere"], labels, scores, None, (), False, settings, {})
    (run / "val.json").write_text(json.dumps(found.result()))


def report(run: Path, **options: object) -> Page:
    return Page(write_report(run, device="cpu", **options).read_text(encoding="utf-8"))  # type: ignore[arg-type]


def test_page_has_the_numbers_of_val_json_and_loads_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<img src=x> & run")
    found = report(run, images=2)
    source = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "//" not in re.sub(r"data:image[^\"]*", "", source)
    assert "script" not in found.tags and "b" in found.tags
    result = json.loads((run / "val.json").read_text())
    for key in ("miou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"):
        assert f"{100 * result[key]:.1f} %" in found.texts
    for entry in result["classes"]:
        assert entry["name"] in found.texts and f"{entry['pixels']:,}" in found.texts
        assert ("absent" if entry["iou"] is None else f"{100 * entry['iou']:.1f} %") in found.texts
    assert "shapes/val, 5 images" in found.text and "Best: 45.7 % at step 40" in found.text
    # Six rows of four: two worst, two best and two samples.
    assert len(found.images) == 24 and all(image["alt"] for image in found.images)
    ranked = sorted(result["per_image"], key=lambda entry: entry["miou"])
    for entry in ranked[:2] + ranked[-2:]:
        assert f"{entry['key']}, mIoU {100 * entry['miou']:.1f} %" in found.text
    # Names and settings appear as text, not as HTML.
    assert "<img src=x> & run" in found.text and "a <b>bold</b> & hostile one" in found.text
    assert "0.0.9" in found.texts and dump(make_recipe()).strip() in "".join(found.texts)


def test_without_validation_the_page_shows_training_images(tmp_path: Path) -> None:
    found = report(make_run(tmp_path / "run", "null"), images=2)
    assert "No scores." in found.texts and "Samples of the training data" in found.text
    assert len(found.images) == 8 and "mIoU" not in found.text


@pytest.mark.parametrize("count", [3, 150])
def test_any_number_of_classes_with_hostile_names(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("</td><script>alert(1)</script>", *(f'"$x_{{{k}}}$" <i>' for k in range(1, count)))
    labels = LabelSet("toy", names, voc_colours(count))
    run = make_run(tmp_path / "run", labels=labels)
    write_val(run, labels)

    missing = DataError("data/<gone>: no such folder")
    monkeypatch.setattr(page, "open_split", Mock(side_effect=missing))
    found = report(run)
    assert names[0] in found.texts and names[-1] in found.texts and "script" not in found.tags
    # IoU, accuracy and Dice of the absent class; accuracy of the class without truth.
    assert found.texts.count("absent") == 3 and found.texts.count("no truth") == 1
    assert "data/<gone>: no such folder" in found.text
    # The matrix of many classes is a figure.
    assert len(found.images) == (count > 40)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        write_report(tmp_path)
    run = make_run(tmp_path / "run", "null")
    (run / "report").touch()
    with pytest.raises(DataError, match=r"index\.html: "):
        write_report(run, device="cpu", images=1)
    (run / "report").unlink()
    (run / "recipe.yaml").write_text(dump(make_recipe()))
    assert "No scores yet." in report(run, images=1).texts
    (run / "val.json").write_text('{"classes": 3')
    with pytest.raises(DataError, match="not a result file"):
        write_report(run, device="cpu")
    write_val(run, LabelSet("toy", ("a", "b"), voc_colours(2)))
    with pytest.raises(DataError, match="another run"):
        write_report(run, device="cpu")


def test_images_predicted_with_an_exported_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = report(run, images=1, model=write_red(tmp_path / "street.onnx"))
    assert "with street.onnx (SHA-256 " in found.text and ", in onnxruntime" in found.text
    other = card(replace(SHAPES, classes=("a", "b", "c", "d", "e", "f"))).text()
    with pytest.raises(DataError, match="another run"):
        write_report(run, images=1, model=write_red(tmp_path / "other.onnx", text=other))
