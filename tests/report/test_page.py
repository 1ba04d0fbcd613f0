import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.recipe_files import dump, parse_recipe
from seenet.core.settings import Recipe
from seenet.data import open_split
from seenet.data.shapes import SHAPES
from seenet.evaluation.evaluator import evaluate
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from seenet.report import page
from seenet.report.page import write_report
from tests.prediction.bundles import card, write_red

VOID = {"meta", "img", "br", "link", "input", "hr"}
# SVG's elements may close themselves, <path/>, which html.parser reports as handle_startendtag.


class Page(HTMLParser):
    """A page's tags, texts and alternative texts; refuses what is not balanced or names another address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def _look(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert (value or "").startswith(("data:image/", "#")), value
        if tag == "img":
            self.images.append(dict(attrs))

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def make_recipe(val: str = "val") -> Recipe:
    return parse_recipe(
        f"description: 'a <b>bold</b> & hostile one'\ndata: {{kind: shapes, size: 48, count: 20, val: {val}}}\n"
        "model: {backbone: resnet18, output_stride: 32, width: 4, p_out: 8}\ntransforms: {crop: 32}\ntraining: {steps: 40, batch: 2}\n",
        "test",
        [],
    )


def make_run(run: Path, val: str = "val", labels: LabelSet = SHAPES) -> Path:
    """A run as training leaves it, with a network that learnt nothing; with val, scored on five pictures."""
    recipe = make_recipe(val)
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(dump(recipe))
    model = create_model(**recipe.model.model_dump(), num_classes=labels.num_classes)
    save_model(run / "model.safetensors", model, labels, notes={"step": 30, "version": "0.0.9"})
    speed = {"images_per_s": 3.0, "memory_mib": 900}
    lines = [json.dumps({"step": step, "loss": 2 / step, "rate": 0.01 / step, **speed}) for step in range(1, 41)]
    if val != "null" and labels is SHAPES:
        lines.append(json.dumps({"step": 40, "val": {"miou": 0.4567, "loss": 1.5}}))
        split = open_split(recipe.data, val)
        result = evaluate(Predictor(model, labels, device="cpu"), split, indices=range(5), loss=True).result()
        (run / "val.json").write_text(json.dumps({**result, "step": 30}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 41, "lo')
    return run


def synthetic(labels: LabelSet) -> dict[str, object]:
    """A result file of a made-up matrix, in which the last class is absent."""
    count = labels.num_classes
    matrix = np.random.default_rng(0).integers(0, 9, (count, count)) + 50 * np.eye(count, dtype=int)
    matrix[-1] = matrix[:, -1] = 0
    rows, hits = matrix.sum(1), np.diag(matrix)
    union = rows + matrix.sum(0) - hits
    ious = [int(h) / int(u) if u else None for h, u in zip(hits, union, strict=True)]
    classes = [
        {"name": name, "iou": iou, "accuracy": iou, "dice": iou, "pixels": int(row)}
        for name, iou, row in zip(labels.classes, ious, rows, strict=True)
    ]
    return {
        "miou": 0.123456, "pixel_accuracy": 0.5, "mean_class_accuracy": 0.25, "frequency_weighted_iou": None, "loss": None,
        "classes": classes,
        "absent": [labels.classes[-1]], "absent_rule": "left out", "data": "toy", "split": "val", "images": 1, "labels": labels.name,
        "ignore_rule": "255", "size_rule": "own", "confusion": matrix.tolist(), "per_image": [{"key": "nowhere", "miou": None}],
    }  # fmt: skip


def test_the_page_holds_the_numbers_of_val_json_and_needs_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<img src=x> & run")
    path = write_report(run, device="cpu", images=2)
    assert path == run / "report" / "index.html"
    source = path.read_text(encoding="utf-8")
    found = Page(source)
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
    assert "//" not in re.sub(r"data:image[^\"]*", "", source)
    assert "script" not in found.tags and "b" in found.tags
    # The run's name and the recipe's words came through as text.
    assert "<img src=x> & run" in found.text and "a <b>bold</b> & hostile one" in found.text
    assert "0.0.9" in found.texts and dump(make_recipe()).strip() in "".join(found.texts)


def test_without_validation_the_page_shows_training_pictures_and_no_scores(tmp_path: Path) -> None:
    found = Page(write_report(make_run(tmp_path / "run", "null"), device="cpu", images=2).read_text(encoding="utf-8"))
    assert "No scores." in found.texts and "Samples of the training data" in found.text
    assert len(found.images) == 8
    assert "mIoU" not in found.text


@pytest.mark.parametrize("count", [2, 150])
def test_any_number_of_classes_with_hostile_names(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("</td><script>alert(1)</script>", *(f'"$x_{{{k}}}$" <i>' for k in range(1, count)))
    labels = LabelSet("toy", names, voc_colours(count))
    run = make_run(tmp_path / "run", labels=labels)
    (run / "val.json").write_text(json.dumps(synthetic(labels)))

    def gone(*_: object) -> None:
        raise DataError("data/<gone>: no such folder")

    monkeypatch.setattr(page, "open_split", gone)
    found = Page(write_report(run, device="cpu").read_text(encoding="utf-8"))
    assert "12.3 %" in found.texts and names[0] in found.texts and names[-1] in found.texts
    assert "script" not in found.tags
    assert found.texts.count("absent") == 3 and "0.0 %" in found.texts  # the absent class: IoU, accuracy, Dice; and its share of pixels
    assert "No pictures: data/<gone>: no such folder" in found.text
    # Up to forty classes the matrix is a table; over that, a picture.
    assert len(found.images) == (count > 40)


def test_what_is_missing_or_damaged_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recipe\.yaml"):
        write_report(tmp_path)
    run = make_run(tmp_path / "run", "null")
    (run / "recipe.yaml").write_text(dump(make_recipe()))
    assert "No scores yet" in write_report(run, device="cpu", images=1).read_text(encoding="utf-8")
    (run / "val.json").write_text('{"classes": 3')
    with pytest.raises(DataError, match="not a result file"):
        write_report(run, device="cpu")
    (run / "val.json").write_text(json.dumps(synthetic(LabelSet("toy", ("a", "b"), voc_colours(2)))))
    with pytest.raises(DataError, match="belongs to another run"):
        write_report(run, device="cpu")


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "null")
    (run / "report").touch()
    with pytest.raises(DataError, match=r"index\.html: cannot be written"):
        write_report(run, device="cpu", images=1)


def test_pictures_by_an_exported_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    bundle = write_red(tmp_path / "street.onnx")
    text = write_report(run, images=1, model=bundle).read_text(encoding="utf-8")
    assert "with street.onnx (SHA-256 " in text
    assert ", in onnxruntime " in text
    assert "with the run&#39;s model" not in text
    other = write_red(tmp_path / "other.onnx", text=card(replace(SHAPES, classes=("a", "b", "c", "d", "e", "f"))).text())
    with pytest.raises(DataError, match="belongs to another run"):
        write_report(run, images=1, model=other)


def test_a_class_predicted_without_truth_is_not_called_absent() -> None:
    result = synthetic(SHAPES)
    entry = result["classes"][-1]  # type: ignore[index]
    entry.update(iou=0.0, accuracy=None, dice=0.0)
    row = page.class_rows(result, SHAPES)[-1]
    assert (row["iou"], row["accuracy"], row["dice"]) == ("0.0 %", "no truth", "0.0 %")
