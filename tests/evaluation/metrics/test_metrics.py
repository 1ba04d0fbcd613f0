"""A metric from outside the package, as docs/metrics.md shows one."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import UsageError
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics import Metric, open_metrics
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, random_split, shown
from tests.prediction.doubles import TinyNet

DOCS = Path(__file__).parents[3] / "docs/metrics.md"
NAME = "wrong:WrongPixels"


@pytest.fixture
def _outside(tmp_path, monkeypatch) -> None:
    """The class in docs/metrics.md is a module of the working folder."""
    code = DOCS.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "wrong.py").write_text(code + "\n\ndef no_metric(split):\n    return 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("_outside")
def test_one_of_your_own_is_counted_shown_and_written():
    split = random_split(4)
    found = evaluate(Predictor(TinyNet(), LABELS, device="cpu"), split, metrics=open_metrics([NAME, "boundary_iou"], split))
    result = found.result()
    wrong = int(found.matrix.sum() - np.diag(found.matrix).sum())
    assert wrong > 0
    assert result[NAME] == {"pixels": wrong}
    text = shown(found)
    assert f"{NAME}: pixels {wrong}" in text
    assert "Boundary IoU" in text


@pytest.mark.usefixtures("_outside")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("boundary_iuo", "nearest: boundary_iou"),
        ("wrong:Missing", "cannot be imported"),
        ("wrong:no_metric", "made int"),
        ("cityscapes", "labels toy"),
    ],
)
def test_what_makes_no_metric_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        open_metrics([name], random_split(1))


@pytest.mark.parametrize(
    ("part", "shown"), [({"a": 0.25, "b": 3, "c": [1, 2]}, "mine: a 0.25, b 3"), (0.5, "mine: 0.5"), ([1, 2], None), (None, None)]
)
def test_numbers_are_shown_by_themselves(part, shown):
    class Mine(Metric):
        def count(self, index, truth, prediction):
            return np.zeros(0, np.int64)

        def result(self, matrix, counted):
            return part

    assert [str(text) for text in Mine(random_split(1)).tables("mine", part)] == ([shown] if shown else [])
