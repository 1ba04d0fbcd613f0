"""The paper, part by part: structure, equations by value, gradients against float64, channels and grids of every row of Table 1."""

import pytest
import torch
from torch import nn

from seenet.model import VARIANTS, create_model
from seenet.model.seenet import BAM, LocalConv, SeEM, SeEMFS, Skip, local_size


def branch_support(module: SeEM, index: int, side: int) -> torch.Tensor:
    """Which input points the centre of one branch's output depends on: the support of the gradient."""
    branch = module.branches[index].double().eval()
    for part in branch.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.1, 1)  # positive: nothing cancels, no ReLU closes
    image = torch.rand(1, module.branches[index][0][0].in_channels, side, side, dtype=torch.float64, requires_grad=True)
    branch(image)[0, :, side // 2, side // 2].sum().backward()
    assert image.grad is not None
    return image.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize("rates", [(7, 13, 19, 25), (3, 6, 9, 12), (2, 4, 5, 7)])
def test_full_sampling_reaches_every_point(rates: tuple[int, ...]) -> None:
    for index, rate in enumerate(rates):
        side = 2 * (rate + local_size(rate) // 2) + 5
        support = branch_support(SeEMFS(2, rates, width=2), index, side)
        reach = rate + local_size(rate) // 2
        centre = side // 2
        window = support[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1]
        assert window.all()
        assert support.sum() == window.numel()


@pytest.mark.parametrize("rates", [(1, 2, 4, 8), (3, 6, 9, 12)])
def test_sparse_sampling_reaches_nine_points(rates: tuple[int, ...]) -> None:
    for index, rate in enumerate(rates):
        support = branch_support(SeEM(2, rates, width=2), index, 2 * rate + 5)
        centre = rate + 2
        expected = {(centre + i * rate, centre + j * rate) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        assert {tuple(point) for point in support.nonzero().tolist()} == expected


def test_local_size_is_the_smallest_odd_number() -> None:
    for rate in range(1, 40):
        size = local_size(rate)
        assert size % 2 == 1 and size >= rate and size - 2 < rate


def test_rate_one_has_no_local_convolution() -> None:
    first, second, *_ = SeEMFS(4, (1, 2, 4, 8), width=4).branches
    assert not any(isinstance(module, LocalConv) for module in first.modules())
    assert any(isinstance(module, LocalConv) for module in second.modules())


def test_branches_stack_behind_the_input() -> None:
    module = SeEM(6, (1, 2, 4, 8), width=3).eval()
    x = torch.randn(2, 6, 9, 11)
    out = module(x)
    assert out.shape == (2, module.out_channels, 9, 11) == (2, 18, 9, 11)
    torch.testing.assert_close(out[:, :6], x)
    for index, branch in enumerate(module.branches):
        torch.testing.assert_close(out[:, 6 + 3 * index : 9 + 3 * index], branch(x))


def test_branch_is_1x1_depthwise_1x1() -> None:
    for branch, rate in zip(SeEM(6, (1, 2, 4, 8), width=4).branches, (1, 2, 4, 8), strict=True):
        reduce, atrous, fuse = [module for module in branch.modules() if isinstance(module, nn.Conv2d)]
        assert (reduce.kernel_size, reduce.in_channels, reduce.out_channels) == ((1, 1), 6, 4)
        assert (atrous.kernel_size, atrous.dilation, atrous.groups) == ((3, 3), (rate, rate), 4)
        assert (fuse.kernel_size, fuse.groups) == ((1, 1), 1)
        assert all(conv.bias is None for conv in (reduce, atrous, fuse))
        assert sum(isinstance(module, nn.BatchNorm2d) for module in branch.modules()) == 3


def test_local_conv_is_the_sum_of_two_pairs() -> None:
    """Against an r x r kernel put together by hand: the outer products, mixed over the middle channels."""
    local = LocalConv(3, 5).double().eval()
    column, row = local.column_row[0].weight, local.column_row[1].weight
    row2, column2 = local.row_column[0].weight, local.row_column[1].weight
    kernel = torch.einsum("mih,omw->oihw", column[..., 0], row[:, :, 0]) + torch.einsum("miw,omh->oihw", row2[:, :, 0], column2[..., 0])
    x = torch.randn(1, 3, 15, 15, dtype=torch.float64)
    inside = (..., slice(4, -4), slice(4, -4))  # the border differs: each line of a pair pads for itself
    expected = nn.functional.relu(local.norm(nn.functional.conv2d(x, kernel, padding=2)))
    torch.testing.assert_close(local(x)[inside], expected[inside])


@pytest.mark.parametrize("kind", [SeEM, SeEMFS])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_against_float64(kind: type[SeEM], memory_format: torch.memory_format) -> None:
    """In fp32, both memory formats; for the other precisions see tests/training/test_precision.py, where training asks before it trusts."""
    torch.manual_seed(0)
    module = kind(16, (7, 13, 19, 25), width=16)
    reference = kind(16, (7, 13, 19, 25), width=16).double()
    reference.load_state_dict(module.state_dict())
    x = torch.randn(2, 16, 32, 32)
    upstream = torch.randn(2, module.out_channels, 32, 32)
    (module.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format)) * upstream).sum().backward()
    (reference(x.double()) * upstream.double()).sum().backward()
    for (name, found), expected in zip(module.named_parameters(), reference.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def identity(conv: nn.Conv2d) -> None:
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(conv.out_channels):
            conv.weight[channel, channel, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1


def transparent(module: nn.Module) -> None:
    """Make conv units pass positive features through unchanged."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            identity(part)
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
    module.eval()


def test_attention_by_value() -> None:
    bam = BAM(3, 2, num_classes=4).eval()
    p, b = torch.randn(2, 3, 5, 6), torch.randn(2, 2, 5, 6)
    _, attention = bam(p, b)
    weight, bias = bam.project.weight[:, :, 0, 0], bam.project.bias
    assert bias is not None
    for n, y, x in ((0, 0, 0), (1, 4, 5), (0, 2, 3)):
        projected = weight @ p[n, :, y, x] + bias
        torch.testing.assert_close(attention[n, :, y, x], 1 - 1 / (1 + torch.exp(-projected)))


@pytest.mark.parametrize("kind", [BAM, Skip])
def test_b_is_added_to_p_times_attention_or_as_it_is(kind: type[BAM] | type[Skip]) -> None:
    refine = kind(3, 3, num_classes=3)
    transparent(refine.fuse)
    transparent(refine.classifier[0])
    p, b = torch.rand(1, 3, 5, 5), torch.rand(1, 3, 5, 5)
    scores, attention = refine(p, b) if kind is BAM else (refine(p, b), torch.ones_like(b))
    torch.testing.assert_close(scores, refine.classifier[1](p + attention * b))
    assert (attention < 1).all() == (kind is BAM)


def test_layers_as_in_fig_4c() -> None:
    bam = BAM(8, 5, num_classes=4)
    convs = [module for module in bam.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.bias is not None) for c in convs] == [
        (8, 5, 1, True), (5, 8, 1, False), (8, 8, 3, False), (8, 8, 3, False), (8, 4, 1, True),
    ]  # fmt: skip


RESNET = (256, 512, 1024, 2048)
SMALL = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}


STAGES = dict(zip(("B1", "B2", "B3", "B4"), RESNET, strict=True)) | {"logits": 21}
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
    assert set(EXPECTED) == set(VARIANTS)
    assert sorted("".join(variant.rows for variant in VARIANTS.values()).replace(", ", "")) == list("abcdefghij")


@pytest.mark.parametrize("variant", EXPECTED)
def test_channels_and_parameters(variant: str) -> None:
    with torch.device("meta"):
        model = create_model(variant, backbone="resnet101", num_classes=21).eval()
        features = model.forward_features(torch.zeros(1, 3, 65, 97))
    channels, parameters = EXPECTED[variant]
    assert {name: tensor.shape[1] for name, tensor in features.items()} == channels
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 64)])
def test_any_size(variant: str, size: tuple[int, int]) -> None:
    model = create_model(variant, **SMALL).eval()
    images = torch.randn(2, 3, *size)
    assert model(images).shape == (2, 5, *size)
    assert model(images, size=(11, 13)).shape == (2, 5, 11, 13)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("refine_stride", [4, 8])
def test_grids(output_stride: int, refine_stride: int) -> None:
    model = create_model(**SMALL, output_stride=output_stride, refine_stride=refine_stride).eval()
    features = model.forward_features(torch.randn(1, 3, 73, 50))

    def grid(name: str) -> tuple[int, int]:
        return tuple(features[name].shape[-2:])  # type: ignore[return-value]

    strides = {"B1": 4, "B2": 8, "B3": min(16, output_stride), "B4": output_stride}
    for name, stride in (strides | {"P2": 8, "P3": strides["B3"], "P4": output_stride, "attention": refine_stride}).items():
        assert grid(name) == (-(-73 // stride), -(-50 // stride)), name
    assert grid("logits") == (73, 50)


@pytest.mark.parametrize(
    ("output_stride", "p3", "p4"),
    [(8, (3, 6, 9, 12), (7, 13, 19, 25)), (16, (2, 3, 5, 6), (4, 7, 10, 13)), (32, (2, 3, 5, 6), (2, 4, 5, 7))],
)
def test_scaled_rates(output_stride: int, p3: tuple[int, ...], p4: tuple[int, ...]) -> None:
    model = create_model(**SMALL, output_stride=output_stride)
    assert model.pyramid is not None
    assert (model.pyramid.P2.rates, model.pyramid.P3.rates, model.pyramid.P4.rates) == ((1, 2, 4, 8), p3, p4)
    fixed = create_model(**SMALL, output_stride=output_stride, rates="fixed")
    assert fixed.pyramid is not None and fixed.pyramid.P4.rates == (7, 13, 19, 25)


def test_scaled_aspp_rates() -> None:
    assert create_model("baseline", **SMALL, output_stride=16).head.rates == (3, 6, 9, 12)  # type: ignore[union-attr]
    assert create_model("pfp", **SMALL).head.rates == (6, 12, 18, 24)  # type: ignore[union-attr]


@pytest.mark.parametrize(("backbone", "expected"), [("resnet18", 128), ("resnet50", 256)])
def test_p_out_auto(backbone: str, expected: int) -> None:
    with torch.device("meta"):
        model = create_model(backbone=backbone)
    assert model.reduce.out_channels == expected  # type: ignore[union-attr]


def test_levels_stand_on_what_fig_6_concatenates() -> None:
    model = create_model(**SMALL).eval()
    features = model.forward_features(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(features["P2"][:, : features["B2"].shape[1]], features["B2"])
    below = torch.cat([features["P2"], features["B3"]], 1)
    torch.testing.assert_close(features["P3"][:, : below.shape[1]], below)
    below = torch.cat([features["P3"], features["B4"]], 1)
    torch.testing.assert_close(features["P4"][:, : below.shape[1]], below)


def test_features_are_the_pass_itself() -> None:
    model = create_model(**SMALL, auxiliary=True).eval()
    images = torch.randn(2, 3, 40, 40)
    features = model.forward_features(images)
    torch.testing.assert_close(features["logits"], model(images))
    assert features["auxiliary"].shape == features["logits"].shape
    gradients = torch.autograd.grad(features["logits"].sum(), [features[name] for name in ("B1", "B2", "B3", "B4", "P2", "P_out")])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_baseline_sums_plain_convolutions() -> None:
    model = create_model("baseline", **SMALL).eval()
    features = model.forward_features(torch.randn(1, 3, 64, 64))
    assert isinstance(model.head, nn.Module)
    expected = sum(
        nn.functional.conv2d(features["B4"], branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(model.head.branches, (6, 12, 18, 24), strict=True)
    )
    expected = nn.functional.interpolate(expected, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features["logits"], expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.head.modules())


def test_patchify_stem_pads_and_crops() -> None:
    model = create_model(backbone="convnext_atto", num_classes=5, width=8, p_out=16).eval()
    assert model.backbone.pad_multiple == 32
    images = torch.randn(1, 3, 40, 33)
    padded = nn.functional.pad(images, (0, 31, 0, 24))
    torch.testing.assert_close(model(images), model(padded)[..., :40, :33])


def test_batch_of_one_point_says_what_to_do() -> None:
    model = create_model(**SMALL).train()
    with pytest.raises(ValueError, match="grid of one point"):
        model(torch.randn(1, 3, 8, 8))
    assert torch.isfinite(model(torch.randn(1, 3, 24, 24))).all()


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
        create_model(**{**SMALL, **options})  # type: ignore[arg-type]
