"""The paper, part by part: structure, equations by value, gradients, channels and grids."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seenet.model import VARIANTS, create_model
from seenet.model.seenet import BAM, LocalConv, SeEM, SeEMFS, Skip, local_size
from tests.model.networks import images, small


def branch_support(module: SeEM, index: int, side: int) -> set[tuple[int, int]]:
    """Return the points, from the centre, that the centre of a branch's output depends on."""
    branch = module.branches[index].double().eval()
    for part in branch.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.1, 1)  # positive: nothing cancels, no ReLU closes
    image = torch.rand(1, 2, side, side, dtype=torch.float64, requires_grad=True)
    centre = side // 2
    branch(image)[0, :, centre, centre].sum().backward()
    assert image.grad is not None
    return {(y - centre, x - centre) for y, x in image.grad[0].abs().sum(0).nonzero().tolist()}


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        (SeEMFS, (7, 13, 19, 25)),
        (SeEMFS, (3, 6, 9, 12)),
        (SeEMFS, (2, 4, 5, 7)),
        (SeEM, (1, 2, 4, 8)),
        (SeEM, (3, 6, 9, 12)),
    ],
)
def test_points_that_a_branch_samples(kind: type[SeEM], rates: tuple[int, ...]) -> None:
    """Nine, or with full sampling every point of the window."""
    for index, rate in enumerate(rates):
        # The smallest odd number from the rate on, half of it on each side.
        reach = rate + rate // 2 if kind is SeEMFS else rate
        steps = range(-reach, reach + 1) if kind is SeEMFS else (-rate, 0, rate)
        support = branch_support(kind(2, rates, width=2), index, 2 * reach + 5)
        assert support == {(y, x) for y in steps for x in steps}


def test_branches_are_concatenated_behind_the_input() -> None:
    module, x = SeEM(6, (1, 2, 4, 8), width=3).eval(), torch.randn(2, 6, 9, 11)
    expected = torch.cat([x, *(branch(x) for branch in module.branches)], 1)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("kind", [SeEM, SeEMFS])
def test_layers_of_a_branch_as_in_fig_4(kind: type[SeEM]) -> None:
    for rate, branch in zip((1, 2, 4, 8), kind(6, (1, 2, 4, 8), width=4).branches, strict=True):
        convs = [module for module in branch.modules() if isinstance(module, nn.Conv2d)]
        norms = [module for module in branch.modules() if isinstance(module, nn.BatchNorm2d)]
        # A rate of 1 needs no local convolution.
        r = 1 if kind is SeEM or rate == 1 else local_size(rate)
        local = [] if r == 1 else [(r, 1), (1, r), (1, r), (r, 1)]
        assert [conv.kernel_size for conv in convs] == [(1, 1), *local, (3, 3), (1, 1)]
        assert (convs[-2].dilation, convs[-2].groups) == ((rate, rate), 4)
        assert all(conv.bias is None for conv in convs)
        assert len(norms) == 3 + (r > 1)


def test_local_conv_is_the_sum_of_two_pairs() -> None:
    """Against an r x r kernel made by hand: outer products, summed over the middle channels."""
    local = LocalConv(3, 5).double().eval()
    column, row = local.column_row[0].weight, local.column_row[1].weight
    row2, column2 = local.row_column[0].weight, local.row_column[1].weight
    kernel = torch.einsum("mih,omw->oihw", column[..., 0], row[:, :, 0]) + torch.einsum(
        "miw,omh->oihw", row2[:, :, 0], column2[..., 0]
    )
    x = torch.randn(1, 3, 15, 15, dtype=torch.float64)
    expected = F.relu(local.norm(F.conv2d(x, kernel, padding=2)))
    # The border differs: each line of a pair pads for itself.
    torch.testing.assert_close(local(x)[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])


def test_bam_by_value() -> None:
    """Eq. 3 and 4 written out; P and E are added."""
    bam, p, b = BAM(3, 2, num_classes=4).eval(), torch.randn(2, 3, 5, 6), torch.randn(2, 2, 5, 6)
    scores, attention = bam(p, b)
    weight, bias = bam.project.weight[:, :, 0, 0], bam.project.bias
    projected = torch.einsum("oi,nihw->nohw", weight, p) + bias[:, None, None]
    torch.testing.assert_close(attention, 1 - 1 / (1 + torch.exp(-projected)))
    torch.testing.assert_close(scores, bam.classifier(p + bam.fuse(attention * b)))


def test_skip_adds_b_without_attention() -> None:
    skip, p, b = Skip(3, 2, num_classes=4).eval(), torch.randn(2, 3, 5, 6), torch.randn(2, 2, 5, 6)
    torch.testing.assert_close(skip(p, b), skip.classifier(p + skip.fuse(b)))


def test_layers_of_bam_as_in_fig_4c() -> None:
    convs = [part for part in BAM(8, 5, num_classes=4).modules() if isinstance(part, nn.Conv2d)]
    found = [(c.in_channels, c.out_channels, c.kernel_size[0], c.bias is not None) for c in convs]
    assert found == [
        (8, 5, 1, True),
        (5, 8, 1, False),
        (8, 8, 3, False),
        (8, 8, 3, False),
        (8, 4, 1, True),
    ]


STAGES = {"B1": 256, "B2": 512, "B3": 1024, "B4": 2048, "logits": 21}
FULL = STAGES | {"P2": 1024, "P3": 2560, "P4": 5120, "P_out": 256}
EXPECTED = {
    "baseline": (STAGES, 44_048_532),
    "pfp": (STAGES | {"P2": 512, "P3": 512}, 53_874_836),
    "seem-fs": (STAGES | {"P4": 2560, "P_out": 256}, 49_068_885),
    "pfp-seem": (FULL, 48_296_789),
    "pfp-seem-fs": (FULL, 55_705_173),
    "pfp-mixed": (FULL, 52_492_117),
    "pfp-mixed-bf": (FULL, 53_148_501),
    "seenet": (FULL | {"attention": 256}, 53_214_293),
}
"""Channels of the named tensors, and parameters, on ResNet-101 with 21 classes.

The parameters are added up by hand from the definitions; the backbone's 42,500,160 are those of
torchvision's ResNet-101 without its classifier.
"""


def test_every_row_of_table_1_is_a_variant() -> None:
    rows = [row for variant in VARIANTS.values() for row in variant.rows.split(", ")]
    assert sorted(rows) == list("abcdefghij")


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_and_parameters(variant: str) -> None:
    with torch.device("meta"):
        model = create_model(variant, backbone="resnet101", num_classes=21).eval()
        features = model.forward_features(torch.zeros(1, 3, 65, 97))
    channels, parameters = EXPECTED[variant]
    assert {name: tensor.shape[1] for name, tensor in features.items()} == channels
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_size(variant: str) -> None:
    model = small(variant).eval()
    for height, width in ((1, 1), (7, 5), (33, 64)):
        assert model(images(height, width, 2)).shape == (2, 5, height, width)
        assert model(images(height, width, 2), size=(11, 13)).shape == (2, 5, 11, 13)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("refine_stride", [4, 8])
def test_grids(output_stride: int, refine_stride: int) -> None:
    model = small(output_stride=output_stride, refine_stride=refine_stride).eval()
    features = model.forward_features(images(73, 50))
    middle = min(16, output_stride)
    strides = {"B1": 4, "B2": 8, "B3": middle, "B4": output_stride, "attention": refine_stride}
    strides |= {"P2": 8, "P3": middle, "P4": output_stride, "logits": 1}
    for name, stride in strides.items():
        assert features[name].shape[-2:] == (-(-73 // stride), -(-50 // stride)), name


@pytest.mark.parametrize(
    ("output_stride", "p3", "p4", "aspp"),
    [
        (8, (3, 6, 9, 12), (7, 13, 19, 25), (6, 12, 18, 24)),
        (16, (2, 3, 5, 6), (4, 7, 10, 13), (3, 6, 9, 12)),
        (32, (2, 3, 5, 6), (2, 4, 5, 7), (2, 3, 5, 6)),
    ],
)
def test_scaled_rates(
    output_stride: int, p3: tuple[int, ...], p4: tuple[int, ...], aspp: tuple[int, ...]
) -> None:
    pyramid = small(output_stride=output_stride).pyramid
    assert [level.rates for level in pyramid.children()] == [(1, 2, 4, 8), p3, p4]
    assert small("pfp", output_stride=output_stride).head.rates == aspp
    fixed = small(output_stride=output_stride, rates="fixed")
    assert fixed.pyramid.P4.rates == (7, 13, 19, 25)


@pytest.mark.parametrize(("backbone", "expected"), [("resnet18", 128), ("resnet50", 256)])
def test_p_out_auto(backbone: str, expected: int) -> None:
    with torch.device("meta"):
        assert create_model(backbone=backbone).reduce.out_channels == expected


def test_levels_concatenate_what_fig_6_draws() -> None:
    features = small().eval().forward_features(images(64, 64))
    for below, stage, level in (("B2", None, "P2"), ("P2", "B3", "P3"), ("P3", "B4", "P4")):
        inputs = torch.cat([features[name] for name in (below, stage) if name], 1)
        torch.testing.assert_close(features[level][:, : inputs.shape[1]], inputs)


def test_features_are_those_of_the_pass() -> None:
    model = small(auxiliary=True).eval()
    features = model.forward_features(images(40, 40, 2))
    torch.testing.assert_close(features["logits"], model(images(40, 40, 2)))
    assert features.pop("auxiliary").shape == features["logits"].shape
    gradients = torch.autograd.grad(features.pop("logits").sum(), list(features.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_baseline_sums_plain_convolutions() -> None:
    model = small("baseline").eval()
    features = model.forward_features(images(64, 64))
    scores = sum(
        F.conv2d(features["B4"], branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(model.head.branches, (6, 12, 18, 24), strict=True)
    )
    expected = F.interpolate(scores, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features["logits"], expected)


def test_patchify_stem_pads_and_crops() -> None:
    model = small(backbone="convnext_atto").eval()
    assert model.backbone.pad_multiple == 32
    padded = F.pad(images(40, 33), (0, 31, 0, 24))
    torch.testing.assert_close(model(images(40, 33)), model(padded)[..., :40, :33])


def test_training_on_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm one point"):
        small()(images(8, 8))
    assert torch.isfinite(small()(images(24, 24))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "seanet"}, "nearest: seenet"),
        ({"backbone": "resnet5O"}, "nearest: .*resnet50"),
        ({"backbone": "vit_base_patch16_224"}, "output stride 8"),
        ({"widht": 64}, "nearest: width"),
        ({"rates": "big"}, "expected one of scaled, fixed"),
        ({"output_stride": 4}, "expected one of 8, 16, 32"),
        ({"width": 0}, "at least 1"),
        ({"p_out": "wide"}, "at least 1"),
        ({"num_classes": 2.5}, "at least 1"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
