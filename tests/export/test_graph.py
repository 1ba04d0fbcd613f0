"""What is replaced while a network is traced has the same values, and is put back."""

import itertools

import torch
from timm.layers import padding
from torch.nn import functional

from seenet.export.graph import _portable


def test_padding_as_timm_has_it() -> None:
    original = padding.get_same_padding
    with _portable():
        assert padding.get_same_padding is not original
        for size, kernel, stride, dilation in itertools.product(range(1, 70), (1, 2, 3, 5, 7), (1, 2, 3, 4), (1, 2, 5)):
            assert padding.get_same_padding(size, kernel, stride, dilation) == original(size, kernel, stride, dilation)
    assert padding.get_same_padding is original


def test_means_of_pairs_and_of_what_stands_alone() -> None:
    original = functional.avg_pool2d
    with _portable():
        for height, width in itertools.product((1, 2, 3, 6, 9), repeat=2):
            x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * 10 + width))
            expected = original(x, 2, ceil_mode=True, count_include_pad=False)
            for found in (
                functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False),
                torch.nn.AvgPool2d((2, 2), 2, ceil_mode=True, count_include_pad=False)(x),
            ):
                assert torch.allclose(found, expected, rtol=1e-14)
        x = torch.randn(1, 1, 7, 6)
        # Whatever is not this very pooling stays as it is.
        for rest in ({"ceil_mode": True}, {"count_include_pad": False}, {"stride": 1}, {"padding": 1}, {"divisor_override": 3}):
            assert torch.equal(functional.avg_pool2d(x, 2, **rest), original(x, 2, **rest))
    assert functional.avg_pool2d is original


def test_means_over_parts() -> None:
    original = functional.adaptive_avg_pool2d
    with _portable():
        for height, width in ((1, 1), (1, 5), (4, 3), (7, 6), (12, 13)):
            x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * 20 + width))
            for size in (1, 2, 3, 6, (2, 3), (None, 2)):
                assert torch.allclose(torch.nn.AdaptiveAvgPool2d(size)(x), original(x, size), rtol=1e-12, atol=1e-15)  # type: ignore[arg-type]
    assert functional.adaptive_avg_pool2d is original
