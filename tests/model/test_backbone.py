"""Backbones: dilations against timm, stages, recomputation, and where ResNet v1 strides."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.model.backbone import Backbone


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions by name; `features_only` joins some names with an underscore."""
    return {
        name.replace(".", "_"): module
        for name, module in network.named_modules()
        # timm's conv_head is behind the last stage.
        if isinstance(module, nn.Conv2d) and not name.startswith("conv_head")
    }


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet101", "tf_efficientnet_lite0", "convnext_atto"]
)
def test_dilations_are_those_of_timm_layer_by_layer(name: str, output_stride: int) -> None:
    ours = convolutions(Backbone(name, output_stride=output_stride).body)
    expected = convolutions(timm.create_model(name, output_stride=output_stride))
    assert ours.keys() == expected.keys()
    for key, conv in expected.items():
        found = ours[key].dilation, ours[key].stride, ours[key].padding
        assert found == (conv.dilation, conv.stride, conv.padding), key


def has_expected_shapes(backbone: Backbone) -> bool:
    stages = backbone.eval()(torch.zeros(1, 3, 64, 96))
    strides = [min(stride, backbone.strides[-1]) for stride in (4, 8, 16, 32)]
    expected = [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, strides, strict=True)
    ]
    return [tuple(stage.shape) for stage in stages] == expected


@pytest.mark.parametrize(
    ("name", "output_stride", "reason"),
    [
        ("dla34", 8, "assert output_stride == 32"),
        ("densenet121", 32, "unexpected keyword argument 'output_stride'"),
        ("halonet26t", 16, r"does not take pictures of any size \(_assert\(H % self.block_size"),
        ("inception_v4", 32, "does not take pictures of any size .*Kernel size"),
        ("resnet", 8, "unknown to timm; nearest: .*resnet"),
    ],
)
def test_other_networks_are_refused_with_a_reason(
    name: str, output_stride: int, reason: str
) -> None:
    message = f"^backbone {name}: .*{reason}[^\n]*$"
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        Backbone(name, output_stride=output_stride)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_family_of_timm_works_or_is_refused(output_stride: int) -> None:
    refused = []
    families = [timm.list_models(module=family) for family in timm.list_modules()]
    shortest = [min(names, key=lambda name: (len(name), name)) for names in families if names]
    for name in shortest:
        try:
            with torch.device("meta"):
                assert has_expected_shapes(Backbone(name, output_stride=output_stride)), name
        except UsageError as error:
            refused.append(str(error))
    assert not [line for line in refused if "\n" in line or "()" in line.replace("__init__()", "")]
    assert 15 <= len(refused) <= len(shortest) - 15


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "tf_efficientnet_lite0",
        "convnext_atto",
        "xception41",
        "cspnext_s",
        "mobilenetv3_small_050",
        "regnetx_002",
    ],
)
def test_stages_have_their_shapes_and_hold_every_tensor_once(name: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(name, output_stride=16)
        assert has_expected_shapes(backbone)
    stages = backbone.stage_modules()
    held = [
        id(tensor)
        for stage in stages
        for module in stage
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    assert all(stages)
    assert sorted(held) == sorted(
        id(tensor) for tensor in (*backbone.body.parameters(), *backbone.body.buffers())
    )


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        ("resnet10t", False),
        pytest.param("resnet10t", True, marks=pytest.mark.slow),
        ("test_efficientnet", False),
        ("test_convnext", False),
        ("xception41", False),
        ("hrnet_w18_small", False),
    ],
)
def test_recomputed_stages_change_nothing(name: str, compiled: bool) -> None:
    """Gradients, statistics and scores are the same, also of a copy."""

    def results(backbone: nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(1)
        torch.stack([(stage**2).mean() for stage in backbone(images)]).sum().backward()
        gradients = {key: parameter.grad for key, parameter in backbone.named_parameters()}
        return {**gradients, **dict(backbone.named_buffers())}

    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    plain = Backbone(name, output_stride=32 if name.startswith("hrnet") else 16).train()
    recomputed = copy.deepcopy(plain)
    recomputed.recompute = True
    recomputed = copy.deepcopy(recomputed)
    assert (plain.recompute, recomputed.recompute) == (False, True)
    if compiled:
        recomputed.compile(backend="aot_eager")
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if compiled else {}
    torch.testing.assert_close(results(recomputed), results(plain), **tolerance)
    recomputed.recompute = False
    torch.testing.assert_close(recomputed.eval()(images), plain.eval()(images), **tolerance)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet10t", [f"layer{number}.0.conv1" for number in (1, 2, 3, 4)]),
        ("test_efficientnet", ["blocks.0", "blocks.1", "blocks.2"]),
    ],
)
def test_stages_are_recomputed_one_by_one(name: str, parts: list[str]) -> None:
    backbone = Backbone(name, output_stride=16).train()
    backbone.recompute = True
    calls: list[str] = []
    for part in parts:
        convs = convolutions(backbone.body.get_submodule(part))
        next(iter(convs.values())).register_forward_hook(lambda *_, part=part: calls.append(part))
    images = torch.randn(2, 3, 64, 64)
    backbone(images)[-1].mean().backward()
    assert calls == [*parts, *reversed(parts)]
    calls.clear()
    backbone.eval()(images)[-1].mean().backward()
    assert calls == parts


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [(8, {"layer2_0_conv1"}), (16, {"layer2_0_conv1", "layer3_0_conv1"})],
)
def test_resnet_v1_strides_on_the_first_1x1(output_stride: int, expected: set[str]) -> None:
    convs = convolutions(Backbone("resnet50", output_stride=output_stride, stride_on="conv1").body)
    strided = {name for name, conv in convs.items() if conv.stride == (2, 2)}
    assert {name for name in strided if "downsample" not in name} == {"conv1", *expected}
