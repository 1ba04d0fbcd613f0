"""Fixtures of the experiments' tests."""

import pytest

from seenet.experiments import ablate
from tests.experiments.doubles import Trainings


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Replace the processes that train by doubles."""
    double = Trainings()
    monkeypatch.setattr(ablate, "_start", double.start)
    return double
