"""Jobs that are begun with one predictor and go on with another: what is recorded, and what a second run makes of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.prediction import batch
from seenet.prediction.batch import PredictReport, predict_files
from seenet.prediction.inputs import Input
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet

INFO = {"file": "red.safetensors", "sha256": "0" * 64}
FP32, BF16 = ("eager", "fp32"), ("eager", "bf16")


class Switching:
    """From the last picture to the first, the first `many` of a run in fp32, the others in bf16."""

    def __init__(self, many: int = 0, accepted: tuple[Any, ...] = (FP32, BF16), **options: Any) -> None:
        self.fp32, self.bf16 = (
            Predictor(RedNet(), LABELS, device="cpu", info=INFO, precision=name, **options) for name in ("fp32", "bf16")
        )
        self.many, self.accepted, self.seen = many, accepted, []

    def accepts(self, way: tuple[str, str]) -> bool:
        return way in self.accepted

    def begin(self, todo: list[Input]) -> list[Input]:
        return todo[::-1]

    def predictor_for(self, item: Input) -> Predictor:
        return self.fp32 if len(self.seen) < self.many else self.bf16

    def done(self, item: Input, seconds: float) -> None:
        self.seen.append((item.name, seconds > 0))

    def run(self, photos: Path, out: Path, **options: Any) -> PredictReport:
        return predict_files(self.fp32, [photos], out, chooser=self, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        image = np.random.default_rng(number).integers(0, 256, (6, 4 + number, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ways(out: Path) -> list[tuple[str, str]]:
    entries = json.loads((out / "manifest.json").read_text())
    return [(entry["runtime"], entry["precision"]) for _, entry in sorted(entries.items())]


def test_each_picture_is_recorded_with_what_made_it(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    one = Switching(2)
    report = one.run(photos, tmp_path / "out")
    assert (report.written, [path.name for path, _ in report.failed], report.settings["precision"]) == (5, ["bad.png"], "bf16")
    assert ways(tmp_path / "out") == [BF16, BF16, BF16, FP32, FP32]
    # The bad one is among those whose predictor was asked for, not among those that were done.
    assert one.seen == [(str(number), True) for number in (4, 3, 2, 1, 0)]


def test_a_second_run_keeps_what_any_accepted_way_made(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Switching(2).run(photos, out)
    before = tree(out)
    for again in (Switching(0), Switching(9)):
        report = again.run(photos, out)
        assert (report.written, report.skipped, again.seen) == (0, 5, [])
        assert tree(out) == before
    # The mask of a picture that is done again was made in the other way.
    (out / "overlays/0.jpg").unlink()
    assert Switching(9).run(photos, out).written == 1
    assert ways(out) == [FP32, BF16, BF16, FP32, FP32]
    assert tree(out).keys() == before.keys()


@pytest.mark.parametrize(
    "other", [lambda: Switching(accepted=(FP32,)), lambda: Switching(flip=True)], ids=["another way", "other settings"]
)
def test_what_is_not_accepted_is_refused(photos: Path, tmp_path: Path, other: Any) -> None:
    out = tmp_path / "out"
    Switching(2).run(photos, out)
    before = tree(out)
    with pytest.raises(DataError, match="--overwrite"):
        other().run(photos, out)
    with pytest.raises(DataError, match="--overwrite"):
        predict_files(Switching().fp32, [photos], out)
    assert tree(out) == before


def test_interrupted_after_the_change_it_goes_on_as_recorded(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    Switching(2).run(photos, tmp_path / "whole")
    segment = batch._segment

    def stop(predictor: Any, item: Input, *more: Any) -> Any:
        if item.name == "1":
            raise KeyboardInterrupt
        return segment(predictor, item, *more)

    with monkeypatch.context() as patch:
        patch.setattr(batch, "_segment", stop)
        with pytest.raises(KeyboardInterrupt):
            Switching(2).run(photos, out)
    assert 2 <= len(ways(out)) <= 3
    Switching(0).run(photos, out)
    expected = tree(tmp_path / "whole")
    # Whether the third was still written is the moment's; in which way it is made is not.
    assert tree(out) == expected
