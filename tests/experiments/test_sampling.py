"""Sampling patterns against their closed form (Fig. 5, Eq. 1 and 2)."""

import numpy as np
import pytest
import torch

from seenet.core.errors import UsageError
from seenet.experiments.sampling import (
    BEYOND,
    MIDDLE,
    MISSED,
    REACHED,
    Pattern,
    gradient_support,
    levels_of,
    measure,
    pattern_picture,
    write_sampling,
)
from seenet.model.seenet import SeEM, SeEMFS, local_size
from tests.experiments.figures import save_small

RATES = (1, 2, 3, 4, 7, 8)


def offsets(pattern: Pattern) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in np.argwhere(pattern.support) - len(pattern.support) // 2}


def square(*steps: int) -> set[tuple[int, int]]:
    return {(y, x) for y in steps for x in steps}


def test_sparse_sampling_is_nine_taps():
    module = measure(SeEM, RATES, "SeEM")
    taps = [square(-rate, 0, rate) for rate in RATES]
    assert [offsets(branch) for branch in module.branches] == taps
    # The module passes its input on, whose middle point is a tap already.
    assert offsets(module.whole) == set().union(*taps)
    count = 8 * len(RATES) + 1
    assert list(module.whole.result().values()) == [8, 17**2, count, count]


def test_full_sampling_is_a_square_of_twice_the_rate_and_the_local_kernel():
    module = measure(SeEMFS, RATES, "SeEM-FS")
    for rate, branch in zip(RATES, module.branches, strict=True):
        # A rate of 1 has no local convolution and needs none: its nine taps are the window.
        side = 2 * rate + local_size(rate) if rate > 1 else 3
        assert offsets(branch) == square(*range(-(side // 2), side // 2 + 1))
        # Eq. 2: every point in the dilated kernel's window.
        counts = branch.result()
        assert counts["reached_in_window"] == counts["window"] == (2 * rate + 1) ** 2
    assert offsets(module.whole) == offsets(module.branches[-1])


def test_the_gradient_is_measured_not_assumed():
    """A local kernel that is too small leaves holes; a kernel with a zero tap does not reach it."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Conv2d(2, 1, 3, padding=5, dilation=5)
    ).double()
    for part in network:
        torch.nn.init.constant_(part.weight, 1.0)
    row = gradient_support(network, 7)[7]
    assert row.astype(int).tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    with torch.no_grad():
        network[1].weight[..., 1, 1] = 0
    assert not gradient_support(network, 7)[6:9, 6:9].any()


@pytest.mark.parametrize(
    ("variant", "stride", "rates"),
    [
        # The paper's at stride 8, halved and rounded up.
        ("seenet", 16, [[1, 2, 4, 8], [2, 3, 5, 6], [4, 7, 10, 13]]),
        ("seem-fs", 32, [[2, 4, 5, 7]]),
    ],
)
def test_levels_of_a_model(tmp_path, variant, stride, rates):
    path = save_small(tmp_path / "net.safetensors", variant, output_stride=stride)
    levels = levels_of(str(path))
    names = ["P2: SeEM", "P3: SeEM", "P4: SeEM-FS"]
    assert [module.name for module in levels] == names[-len(rates) :]
    assert [[branch.rate for branch in module.branches] for module in levels] == rates
    counts = levels[-1].whole.result()
    assert counts["reached_in_window"] == counts["window"]


@pytest.mark.parametrize(("kind", "counts"), [(SeEMFS, (1, 80, 88, 0)), (SeEM, (1, 8, 0, 72))])
def test_the_picture_shows_the_pattern(kind, counts):
    (pattern,) = measure(kind, (4,), "module").branches
    points = pattern_picture(pattern, side=3 * len(pattern.support))[1::3, 1::3].reshape(-1, 3)
    assert points[len(points) // 2].tolist() == list(MIDDLE)
    colours = (MIDDLE, REACHED, BEYOND, MISSED)
    assert tuple((points == colour).all(1).sum() for colour in colours) == counts


def test_a_model_has_its_own_rates(tmp_path):
    with pytest.raises(UsageError, match="has rates of its own; leave --rates 1,2 out"):
        write_sampling(tmp_path / "a.png", model="camvid-lite0", rates=(1, 2))
