"""A metric of the user's own, as docs/metrics.md shows it."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import UsageError
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics import Metric, open_metrics
from tests.evaluation.doubles import random_split, shown, tiny

DOCS = Path(__file__).parents[3] / "docs/metrics.md"
NAME = "own_metric:WrongPixels"


@pytest.fixture
def _docs_module(tmp_path, monkeypatch) -> None:
    """Make the class in docs/metrics.md a module that can be imported."""
    code = DOCS.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "own_metric.py").write_text(code + "\n\ndef no_metric(split):\n    return 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("_docs_module")
def test_the_metric_of_the_docs_is_counted_and_shown():
    split = random_split(4)
    evaluation = evaluate(tiny(), split, metrics=open_metrics([NAME, "boundary_iou"], split))
    wrong = int(evaluation.matrix.sum() - np.trace(evaluation.matrix))
    assert wrong > 0
    assert evaluation.result()[NAME] == {"pixels": wrong}
    text = shown(evaluation)
    assert f"{NAME}: pixels {wrong}" in text
    assert "Boundary IoU" in text


@pytest.mark.usefixtures("_docs_module")
@pytest.mark.parametrize(
    "name", ["boundary_iuo", "own_metric:Missing", "own_metric:no_metric", "cityscapes"]
)
def test_names_that_make_no_metric_are_refused(name):
    with pytest.raises(UsageError):
        open_metrics([name], random_split(1))


@pytest.mark.parametrize("failing", ["__init__", "count", "result"])
def test_an_own_metric_that_fails_is_one_error_with_its_name(tmp_path, monkeypatch, failing):
    name = f"failing_{failing.strip('_')}"
    good = "np.zeros(1, np.int64)"
    lines = {
        "__init__": "super().__init__(args[0])", "count": f"return {good}", "result": "return 1"
    } | {failing: "raise KeyError('wheat')"}  # fmt: skip
    code = "import numpy as np\nfrom seenet.evaluation.metrics import Metric\nclass Bad(Metric):\n"
    code += "".join(f"    def {key}(self, *args):\n        {line}\n" for key, line in lines.items())
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    split = random_split(2)
    with pytest.raises(UsageError, match=f"--metric {name}:Bad: failed with KeyError: 'wheat'"):
        evaluate(tiny(), split, metrics=open_metrics([f"{name}:Bad"], split)).result()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"a": 0.25, "b": 3, "c": [1, 2]}, ["mine: a 0.25, b 3"]),
        (0.5, ["mine: 0.5"]),
        ([1, 2], []),
        (None, []),
    ],
)
def test_default_tables_show_the_numbers(part, expected):
    class Mine(Metric):
        def count(self, index, truth, prediction):
            return np.zeros(0, np.int64)

        def result(self, matrix, counted):
            return part

    assert [str(text) for text in Mine(random_split(1)).tables("mine", part)] == expected
