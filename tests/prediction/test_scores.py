"""Scores mean the same as arrays and as tensors."""

import numpy as np
import pytest
import torch

from seenet.core.errors import NotFiniteError
from seenet.prediction.scores import negative_log_likelihood, to_mask, to_probabilities

SCORES = np.random.default_rng(0).normal(0, 40, (5, 7, 9)).astype(np.float32)
SCORES[1, 0] = SCORES[3, 0] = SCORES.max()  # two are equal


def test_masks_are_the_same_and_the_lower_id_wins() -> None:
    mask = to_mask(SCORES)
    assert mask.dtype == np.uint8
    assert (mask[0] == 1).all()
    assert np.array_equal(mask, to_mask(torch.from_numpy(SCORES)))
    assert to_mask(np.zeros((300, 2, 2), np.float32)).dtype == np.uint16


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_scores_that_are_no_numbers_are_told(value: float, kind: type) -> None:
    scores = SCORES.copy()
    scores[2, 3, 4] = value
    with pytest.raises(NotFiniteError):
        to_mask(kind(scores))


def test_probabilities_against_float64() -> None:
    wide = np.exp(SCORES.astype(np.float64) - SCORES.max(0))
    expected = wide / wide.sum(0)
    for scores in (SCORES, torch.from_numpy(SCORES)):
        found = to_probabilities(scores)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_likelihood_against_float64_and_torch() -> None:
    truth = np.random.default_rng(1).integers(0, 5, (7, 9)).astype(np.uint8)
    truth[2:4] = 255
    wide = SCORES.astype(np.float64)
    expected = 0.0
    for y, x in np.argwhere(truth != 255):
        expected += np.log(np.exp(wide[:, y, x] - wide[:, y, x].max()).sum()) + wide[:, y, x].max() - wide[truth[y, x], y, x]
    assert negative_log_likelihood(SCORES, truth, 255) == pytest.approx(expected, rel=1e-6)
    assert negative_log_likelihood(torch.from_numpy(SCORES), truth, 255) == pytest.approx(expected, rel=1e-6)
    nothing = np.full((7, 9), 255, np.uint8)
    assert negative_log_likelihood(SCORES, nothing, 255) == negative_log_likelihood(torch.from_numpy(SCORES), nothing, 255) == 0.0
