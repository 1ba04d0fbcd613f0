"""Jobs that change their predictor while they run: what is recorded, and kept by a second run."""

import json
from pathlib import Path
from typing import Any

import pytest

from seenet.core.errors import DataError
from seenet.prediction.batch import PredictReport, predict_files
from seenet.prediction.pictures import Input
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import draw, red_predictor, tree

FP32, BF16 = ("eager", "fp32"), ("eager", "bf16")


class Switching:
    """Chooser that reverses the pictures; the first `many` of a run in fp32, the others in bf16."""

    def __init__(self, many: int = 0, accepted: tuple[Any, ...] = (FP32, BF16), **options: Any):
        self.fp32 = red_predictor(precision="fp32", **options)
        self.bf16 = red_predictor(precision="bf16", **options)
        self.many, self.accepted, self.seen = many, accepted, []

    def accepts(self, backend: tuple[str, str]) -> bool:
        return backend in self.accepted

    def begin(self, todo: list[Input]) -> list[Input]:
        return todo[::-1]

    def predictor_for(self, item: Input) -> Predictor:
        return self.fp32 if len(self.seen) < self.many else self.bf16

    def done(self, item: Input, seconds: float) -> None:
        self.seen.append(item.name)

    def run(self, photos: Path, out: Path) -> PredictReport:
        return predict_files(self.fp32, [photos], out, chooser=self)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):
        draw(tmp_path / "photos" / f"{number}.png", number, (6, 4 + number))
    return tmp_path / "photos"


def backends(out: Path) -> list[tuple[str, str]]:
    entries = json.loads((out / "manifest.json").read_text())
    return [(entry["runtime"], entry["precision"]) for _, entry in sorted(entries.items())]


def test_each_picture_is_recorded_with_its_backend(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    chooser = Switching(2)
    report = chooser.run(photos, tmp_path / "out")
    assert (report.written, len(report.failed), report.settings["precision"]) == (5, 1, "bf16")
    assert backends(tmp_path / "out") == [BF16, BF16, BF16, FP32, FP32]
    assert chooser.seen == ["4", "3", "2", "1", "0"]


def test_a_second_run_keeps_the_outputs_of_accepted_backends(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Switching(2).run(photos, out)
    before = tree(out)
    report = Switching(9).run(photos, out)
    assert (report.written, report.skipped, tree(out)) == (0, 5, before)
    for other in (Switching(accepted=(FP32,)), Switching(flip=True)):
        with pytest.raises(DataError, match="--overwrite"):
            other.run(photos, out)
    with pytest.raises(DataError, match="--overwrite"):
        predict_files(red_predictor(), [photos], out)
    assert tree(out) == before
    # A picture that is done again replaces the mask of the other backend.
    (out / "overlays/0.jpg").unlink()
    assert Switching(9).run(photos, out).written == 1
    assert backends(out) == [FP32, BF16, BF16, FP32, FP32]
