import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from seenet.core.errors import DataError, UsageError
from seenet.experiments.widths import widths_figure, write_widths_figure


def result(model: str, miou: dict[str, float | None], **more: object) -> dict:
    boundary = {"kind": "trimap", "miou": miou}
    return {"data": "toy", "split": "val", "model": {"file": model}, "boundary": boundary, **more}


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name / "result.json" for name in ("seenet", "baseline")]
    for path, start in zip(paths, (0.5, 0.4), strict=True):
        path.parent.mkdir()
        model = f"runs/{path.parent.name}/model.safetensors"
        path.write_text(json.dumps(result(model, {"1": start, "3": start + 0.1, "5": None})))
    return paths


def test_the_lines_are_the_numbers(monkeypatch):
    drawn, plot = [], Axes.plot

    def record(self, *args, **more):
        drawn.append((args, more["label"]))
        return plot(self, *args, **more)

    monkeypatch.setattr(Axes, "plot", record)
    one = result("x", {"1": 0.5, "10": 0.7, "21": None})
    data = widths_figure({"a": one, "b": result("y", {"3": 0.25})})
    assert drawn == [(((1, 10), (50.0, 70.0)), "a"), (((3,), (25.0,)), "b")]
    assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a result file"),
        ("[]", "not a result file"),
        (json.dumps(result("x", {"1": None})), "has no bands"),
        (json.dumps(result("x", {}, boundary=None)), "--boundary trimap"),
        (json.dumps(result("x", {"1": 0.5}, split="test")), "toy/test, trimap, but .*toy/val, tri"),
        (
            json.dumps(result("x", {}, boundary={"kind": "transition", "miou": {"1": 0.5}})),
            "transition, but",
        ),
        (None, "no such file"),
    ],
)
def test_other_files_are_refused(results, tmp_path, content, message):
    if content is None:
        results[1].unlink()
    else:
        results[1].write_text(content)
    with pytest.raises(DataError, match=message):
        write_widths_figure(results, tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"ends in \.png"):
        write_widths_figure(results, tmp_path / "a.jpg")
    assert not (tmp_path / "a.png").exists()
