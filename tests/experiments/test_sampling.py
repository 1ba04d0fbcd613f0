"""Sampling patterns against their closed form (Fig. 5, Eq. 1 and 2)."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import UsageError
from seenet.experiments.sampling import (
    BEYOND,
    MIDDLE,
    MISSED,
    REACHED,
    Pattern,
    gradient_support,
    levels_of,
    lines,
    measure,
    pattern_picture,
    sampling_figure,
    sparse_and_full,
    write_sampling,
)
from seenet.model.seenet import SeEM, SeEMFS, local_size
from tests.experiments.figures import save_small

RATES = (1, 2, 3, 4, 7, 8)


def places(pattern: Pattern) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in np.argwhere(pattern.support) - len(pattern.support) // 2}


def square(*offsets: int) -> set[tuple[int, int]]:
    return {(y, x) for y in offsets for x in offsets}


def test_sparse_sampling_is_nine_taps():
    module = measure(SeEM, RATES, "SeEM")
    for rate, branch in zip(RATES, module.branches, strict=True):
        assert places(branch) == square(-rate, 0, rate)
    # The module passes its input on, whose middle point is a tap already.
    assert places(module.whole) == set().union(*(square(-rate, 0, rate) for rate in RATES))
    assert module.whole.result() == {"rate": 8, "window": 17**2, "reached_in_window": 8 * len(RATES) + 1, "reached": 8 * len(RATES) + 1}


def test_full_sampling_is_a_square_of_twice_the_rate_and_the_local_kernel():
    module = measure(SeEMFS, RATES, "SeEM-FS")
    for rate, branch in zip(RATES, module.branches, strict=True):
        # A rate of 1 has no local convolution and needs none: its nine taps are the window.
        side = 2 * rate + local_size(rate) if rate > 1 else 3
        assert places(branch) == square(*range(-(side // 2), side // 2 + 1))
        assert branch.result()["reached"] == side**2
        # Eq. 2: every point in the dilated kernel's window.
        assert branch.window.shape == (2 * rate + 1, 2 * rate + 1)
        assert branch.window.all()
    assert places(module.whole) == places(module.branches[-1])


def test_the_paper_s_example():
    """Rate 3: sparse sees x0, x3, x6 of a row (Eq. 1), full x0 to x8 (Eq. 2)."""
    sparse, full = sparse_and_full((3,))
    assert sorted({x for _, x in places(sparse.branches[0])}) == [-3, 0, 3]
    assert sorted({x for _, x in places(full.branches[0])}) == list(range(-4, 5))


@pytest.mark.parametrize("kind", [SeEM, SeEMFS])
def test_width_changes_nothing(kind):
    one, three = (measure(kind, (2, 5), "module", width=width) for width in (1, 3))
    for a, b in zip([*one.branches, one.whole], [*three.branches, three.whole], strict=True):
        assert np.array_equal(a.support, b.support)


def test_the_gradient_is_measured_not_assumed():
    """Too small a local kernel leaves holes, which the measurement shows; a kernel with a zero tap has none there."""
    holes = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.Conv2d(2, 1, 3, padding=5, dilation=5)).double()
    for part in holes:
        torch.nn.init.constant_(part.weight, 1.0)
    support = gradient_support(holes, 2, 7)
    row = support[7]
    assert row.astype(int).tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    with torch.no_grad():
        holes[1].weight[..., 1, 1] = 0
    assert not gradient_support(holes, 2, 7)[6:9, 6:9].any()


@pytest.mark.parametrize("rates", [(), (0, 1), (3, 101)])
def test_rates_that_make_no_sense(rates):
    with pytest.raises(UsageError, match="whole numbers from 1 to 100"):
        sparse_and_full(rates)


def test_levels_of_a_model(tmp_path):
    found = levels_of(str(save_small(tmp_path / "net.safetensors", output_stride=16)))
    assert [module.name for module in found] == ["P2: SeEM", "P3: SeEM", "P4: SeEM-FS"]
    # The paper's at stride 8; halved and rounded up at stride 16.
    assert [[branch.rate for branch in module.branches] for module in found] == [[1, 2, 4, 8], [2, 3, 5, 6], [4, 7, 10, 13]]
    assert all(branch.window.all() for branch in found[2].branches)
    (alone,) = levels_of(str(save_small(tmp_path / "e.safetensors", "seem-fs", output_stride=32)))
    assert (alone.name, [branch.rate for branch in alone.branches]) == ("P4: SeEM-FS", [2, 4, 5, 7])


@pytest.mark.parametrize("variant", ["baseline", "pfp", "torchvision-fcn"])
def test_models_without_seem(tmp_path, variant):
    path = save_small(tmp_path / "net.safetensors", variant)
    with pytest.raises(UsageError, match=rf"variant {variant} has neither.*seem-fs, pfp-seem, .*seenet") as caught:
        levels_of(str(path))
    assert caught.value.exit_code == 2


def test_the_picture_shows_the_pattern():
    (full,) = measure(SeEMFS, (4,), "SeEM-FS").branches
    (sparse,) = measure(SeEM, (4,), "SeEM").branches
    assert full.reach == 6
    assert sparse.reach == 4
    for pattern, reach, counts in ((full, 6, (80, 88, 0)), (sparse, 6, (9 - 1, 0, 72)), (sparse, 4, (8, 0, 72))):
        picture = pattern_picture(pattern, reach, side=3 * (2 * reach + 1))
        points = picture[1::3, 1::3].reshape(-1, 3)
        assert len(points) == (2 * reach + 1) ** 2
        assert points[len(points) // 2].tolist() == list(MIDDLE)
        assert tuple((points == colour).all(1).sum() for colour in (REACHED, BEYOND, MISSED)) == counts


def test_the_figure_and_its_words(tmp_path):
    modules = sparse_and_full((7,))
    assert lines(modules).splitlines() == [
        "SeEM: sparse, rate 7: 9 of 225 points in the window",
        "SeEM: sparse, the whole module: 9 of 225 points in the window",
        "SeEM-FS: full, rate 7: 225 of 225 points in the window, 216 beyond",
        "SeEM-FS: full, the whole module: 225 of 225 points in the window, 216 beyond",
    ]
    with Image.open(io.BytesIO(sampling_figure(modules))) as image:
        assert image.format == "PNG"
    with pytest.raises(UsageError, match="has rates of its own; leave --rates 1,2 out"):
        write_sampling(tmp_path / "a.png", model="camvid-lite0", rates=(1, 2))
    assert not list(tmp_path.iterdir())
