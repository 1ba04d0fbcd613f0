"""Jobs that change their predictor while they run: what is recorded, and kept by a second run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seenet.core.errors import DataError
from seenet.prediction.batch import PredictReport, predict_files
from tests.prediction.doubles import draw, red_predictor, tree

FP32, BF16 = ("eager", "fp32"), ("eager", "bf16")


def switching(many: int = 0, accepted: tuple[Any, ...] = (FP32, BF16), **options: Any) -> Any:
    """A chooser that reverses the pictures; the first `many` are done in fp32, the rest in bf16."""
    fp32, bf16 = (red_predictor(precision=precision, **options) for precision in ("fp32", "bf16"))
    seen: list[str] = []
    return SimpleNamespace(
        accepts=lambda backend: backend in accepted,
        begin=lambda todo: todo[::-1],
        predictor_for=lambda item: fp32 if len(seen) < many else bf16,
        done=lambda item, seconds: seen.append(item.name),
        first=fp32,
        seen=seen,
    )


def run(chooser: Any, photos: Path) -> PredictReport:
    return predict_files(chooser.first, [photos], photos.parent / "out", chooser=chooser)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):
        draw(tmp_path / "photos" / f"{number}.png", number, (6, 4 + number))
    return tmp_path / "photos"


def backends(out: Path) -> list[tuple[str, str]]:
    entries = json.loads((out / "manifest.json").read_text())
    return [(entry["runtime"], entry["precision"]) for _, entry in sorted(entries.items())]


def test_each_picture_is_recorded_with_its_backend(photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    chooser = switching(2)
    report = run(chooser, photos)
    assert (report.written, len(report.failed), report.settings["precision"]) == (5, 1, "bf16")
    assert backends(photos.parent / "out") == [BF16, BF16, BF16, FP32, FP32]
    assert chooser.seen == ["4", "3", "2", "1", "0"]


def test_a_second_run_keeps_the_outputs_of_accepted_backends(photos: Path) -> None:
    out = photos.parent / "out"
    run(switching(2), photos)
    before = tree(out)
    report = run(switching(9), photos)
    assert (report.written, report.skipped, tree(out)) == (0, 5, before)
    for other in (switching(accepted=(FP32,)), switching(accepted=()), switching(flip=True)):
        with pytest.raises(DataError, match="--overwrite"):
            run(other, photos)
    assert tree(out) == before
    # A picture that is done again replaces the mask of the other backend.
    (out / "overlays/0.jpg").unlink()
    assert run(switching(9), photos).written == 1
    assert backends(out) == [FP32, BF16, BF16, FP32, FP32]
