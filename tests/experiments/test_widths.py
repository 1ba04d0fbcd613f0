import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.experiments.widths import widths_figure, write_widths_figure


def result(model: str, miou: dict[str, float | None], **more: object) -> dict:
    return {
        "data": "toy",
        "split": "val",
        "model": {"file": model},
        "boundary": {"kind": "trimap", "miou": miou},
        **more,
    }


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    paths = []
    for name, start in (("seenet", 0.5), ("baseline", 0.4)):
        paths.append(tmp_path / name / "result.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(
            json.dumps(
                result(f"runs/{name}/model.safetensors", {"1": start, "3": start + 0.1, "5": None})
            )
        )
    return paths


def test_a_figure_of_two_models(results, tmp_path):
    out = tmp_path / "figures/widths.png"
    write_widths_figure(results, out)
    with Image.open(out) as image:
        assert image.format == "PNG"
        both = np.asarray(image.convert("RGB"))
    with pytest.raises(DataError, match="--overwrite"):
        write_widths_figure(results[:1], out)
    write_widths_figure(results[:1], out, overwrite=True)
    with Image.open(out) as image:
        alone = np.asarray(image.convert("RGB"))
    assert both.std() > 0
    assert not np.array_equal(both, alone)


def test_the_lines_are_the_numbers(monkeypatch):
    from matplotlib.axes import Axes

    drawn, plot = [], Axes.plot
    monkeypatch.setattr(
        Axes,
        "plot",
        lambda self, *args, **more: (
            drawn.append((args, more["label"])) or plot(self, *args, **more)
        ),
    )
    data = widths_figure(
        {"a": result("x", {"1": 0.5, "10": 0.7, "21": None}), "b": result("y", {"3": 0.25})}
    )
    assert drawn == [(((1, 10), (50.0, 70.0)), "a"), (((3,), (25.0,)), "b")]
    Image.open(io.BytesIO(data)).verify()


def test_models_are_named_by_run_or_file(results, monkeypatch):
    from seenet.experiments import widths

    asked = []
    monkeypatch.setattr(widths, "widths_figure", lambda found: asked.append(list(found)) or b"")
    write_widths_figure(results, results[0].parent / "a.png", overwrite=True)
    results[1].write_text(json.dumps(result("runs/seenet/model.safetensors", {"1": 0.5})))
    write_widths_figure(results, results[0].parent / "a.png", overwrite=True)
    results[1].write_text(json.dumps(result("models/camvid-lite0.safetensors", {"1": 0.5})))
    write_widths_figure(results, results[0].parent / "a.png", overwrite=True)
    assert asked == [
        ["seenet", "baseline"],
        [str(path) for path in results],
        ["seenet", "camvid-lite0"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a result file"),
        ("[]", "not a result file"),
        (json.dumps(result("x", {"1": None})), "has no bands"),
        (json.dumps(result("x", {}, boundary=None)), "--boundary trimap"),
        (
            json.dumps(result("x", {"1": 0.5}, split="test")),
            "toy/test, trimap, but .*toy/val, trimap",
        ),
        (
            json.dumps(result("x", {}, boundary={"kind": "transition", "miou": {"1": 0.5}})),
            "transition, but",
        ),
    ],
)
def test_other_files_are_refused(results, tmp_path, content, message):
    results[1].write_text(content)
    with pytest.raises(DataError, match=message):
        write_widths_figure(results, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_missing_files_and_other_formats(results, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        write_widths_figure([tmp_path / "none.json"], tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"ends in \.png"):
        write_widths_figure(results, tmp_path / "a.jpg")
