"""Channels, shapes and equations of design.md's table, for every row of Table 1."""

import pytest
import torch
from torch import nn

from seenet.model import VARIANTS, create_model
from seenet.model.bam import BAM
from seenet.model.seem import SeEMFS

RESNET = (256, 512, 1024, 2048)
SMALL = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}


def channels(variant: str) -> dict[str, int]:
    with torch.device("meta"):
        model = create_model(variant, backbone="resnet101", num_classes=21).eval()
        features = model.forward_features(torch.zeros(1, 3, 65, 97))
    return {name: tensor.shape[1] for name, tensor in features.items()}


STAGES = dict(zip(("B1", "B2", "B3", "B4"), RESNET, strict=True)) | {"logits": 21}
FULL = STAGES | {"P2": 1024, "P3": 2560, "P4": 5120, "P_out": 256}
EXPECTED = {
    "baseline": STAGES,
    "pfp": STAGES | {"P2": 512, "P3": 512},
    "seem-fs": STAGES | {"P4": 2560, "P_out": 256},
    "pfp-seem": FULL,
    "pfp-seem-fs": FULL,
    "pfp-mixed": FULL,
    "pfp-mixed-bf": FULL,
    "seenet": FULL | {"attention": 256},
}


def test_every_row_of_table_1_is_a_variant() -> None:
    assert set(EXPECTED) == set(VARIANTS)
    assert sorted("".join(variant.rows for variant in VARIANTS.values()).replace(", ", "")) == list("abcdefghij")


@pytest.mark.parametrize("variant", EXPECTED)
def test_features_and_channels(variant: str) -> None:
    assert channels(variant) == EXPECTED[variant]


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("baseline", 44_048_532), ("pfp", 53_874_836), ("seem-fs", 49_068_885), ("pfp-seem", 48_296_789),
        ("pfp-seem-fs", 55_705_173), ("pfp-mixed", 52_492_117), ("pfp-mixed-bf", 53_148_501), ("seenet", 53_214_293),
    ],
)  # fmt: skip
def test_parameter_counts(variant: str, parameters: int) -> None:
    """Added up by hand from the definitions; the backbone's 42,500,160 are torchvision's ResNet-101 without its classifier."""
    with torch.device("meta"):
        model = create_model(variant, backbone="resnet101", num_classes=21)
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


def test_depthwise_local_conv_and_names() -> None:
    model = create_model(**SMALL, local_conv="depthwise")
    assert model.pyramid is not None and isinstance(model.pyramid.P4, SeEMFS)
    lines = [module for name, module in model.pyramid.P4.named_modules() if "column_row" in name and isinstance(module, nn.Conv2d)]
    assert len(lines) == 8 and all(line.groups == 8 for line in lines)
    assert isinstance(model.refine, BAM)
