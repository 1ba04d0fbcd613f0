"""Dilations layer by layer against timm, strides, stages and their recomputation, and where ResNet v1 strides."""

import copy

import pytest
import timm
import torch
from torch import nn

from seenet.core.errors import UsageError
from seenet.model.backbone import Backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "tf_efficientnet_lite0", "convnext_atto"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilations_layer_by_layer(name: str, output_stride: int) -> None:
    ours = Backbone(name, output_stride=output_stride).body
    reference = timm.create_model(name, output_stride=output_stride)
    # `features_only` joins the first parts of some names with an underscore, and leaves out what stands behind the last stage.
    convs = {key.replace(".", "_"): module for key, module in reference.named_modules() if isinstance(module, nn.Conv2d)}
    convs = {key: module for key, module in convs.items() if not key.startswith("conv_head")}
    found = {key.replace(".", "_"): module for key, module in ours.named_modules() if isinstance(module, nn.Conv2d)}
    assert found.keys() == convs.keys()
    for key, conv in convs.items():
        assert (found[key].dilation, found[key].stride, found[key].padding) == (
            conv.dilation,
            conv.stride,
            conv.padding,
        ), key


def test_first_unit_keeps_the_dilation_before() -> None:
    body = Backbone("resnet50").body
    dilations = {f"layer{s}.{u}": body.get_submodule(f"layer{s}.{u}.conv2").dilation[0] for s in (2, 3, 4) for u in (0, 1, 2)}
    assert dilations == {
        "layer2.0": 1, "layer2.1": 1, "layer2.2": 1, "layer3.0": 1, "layer3.1": 2, "layer3.2": 2,
        "layer4.0": 2, "layer4.1": 4, "layer4.2": 4,
    }  # fmt: skip


def shapes(backbone: Backbone, output_stride: int) -> bool:
    """Whether its stages are what it says of them; with torch's meta device without computing."""
    stages = backbone.eval()(torch.zeros(1, 3, 64, 96))
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    expected = [(channels, 64 // stride, 96 // stride) for channels, stride in zip(backbone.channels, strides, strict=True)]
    return [tuple(stage.shape[1:]) for stage in stages] == expected


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto", "regnetx_002", "xception41", "cspnext_s"]
)
def test_families(name: str) -> None:
    with torch.device("meta"):
        assert shapes(Backbone(name, output_stride=16), 16)


@pytest.mark.parametrize(
    ("name", "output_stride", "reason"),
    [
        ("dla34", 8, "assert output_stride == 32"),
        ("densenet121", 32, "unexpected keyword argument 'output_stride'"),
        ("halonet26t", 16, "does not take pictures of any size"),
        ("inception_v4", 32, "does not take pictures of any size .*Kernel size"),
        ("resnet", 8, "unknown to timm; nearest: .*resnet"),
    ],
)
def test_others_are_refused_with_a_reason(name: str, output_stride: int, reason: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=f"^backbone {name}: .*{reason}") as caught:
        Backbone(name, output_stride=output_stride)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_family_of_timm_works_or_is_refused(output_stride: int) -> None:
    refused, working = [], []
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if not names:
            continue
        name = min(names, key=lambda name: (len(name), name))
        with torch.device("meta"):
            try:
                backbone = Backbone(name, output_stride=output_stride)
            except UsageError as error:
                refused.append(str(error))
                continue
            assert shapes(backbone, output_stride), name
            if family == "hrnet":
                with pytest.raises(UsageError, match="freeze_stages"):
                    backbone.stage_modules()
            else:
                assert all(backbone.stage_modules()), name
        working.append(name)
    assert not [line for line in refused if "\n" in line or "()" in line.replace("__init__()", "")]
    assert len(working) >= 15 and len(refused) >= 15


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "xception41", "cspnext_s"])
def test_stages_hold_every_parameter_and_buffer_once(name: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(name, output_stride=16)
    stages = backbone.stage_modules()
    found = [
        id(tensor) for stage in stages for module in stage for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    expected = {id(tensor) for tensor in (*backbone.body.parameters(), *backbone.body.buffers())}
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(stages)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_frozen_stages_are_frozen_whole(name: str) -> None:
    backbone = Backbone(name, output_stride=16)
    for stage in backbone.stage_modules():
        for module in stage:
            module.requires_grad_(False)
            module.eval()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(norm.training for norm in backbone.norms())
    assert len(backbone.norms()) == (48 if name == "tf_efficientnet_lite0" else 0)


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_convnext", "xception41", "hrnet_w18_small"])
def test_recomputed_stages_change_nothing(name: str) -> None:
    """Gradients, statistics and scores are the same, also of a copy."""
    torch.manual_seed(0)
    plain = Backbone(name, output_stride=32 if name.startswith("hrnet") else 16).train()
    recomputed = copy.deepcopy(plain)
    recomputed.recompute = True
    recomputed = copy.deepcopy(recomputed)
    assert (plain.recompute, recomputed.recompute) == (False, True)
    images = torch.randn(2, 3, 64, 64)
    for backbone in (plain, recomputed):
        torch.manual_seed(1)
        sum((stage**2).mean() for stage in backbone(images)).backward()  # type: ignore[union-attr]
    for (key, ours), theirs in zip(recomputed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=key)
    for (key, ours), theirs in zip(recomputed.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=key)
    recomputed.recompute = False
    pairs = zip(recomputed.eval()(images), plain.eval()(images), strict=True)
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


def test_recomputed_stages_compile() -> None:
    torch.manual_seed(0)
    plain = Backbone("resnet10t", output_stride=16).train()
    recomputed = copy.deepcopy(plain)
    recomputed.recompute = True
    recomputed.compile(backend="aot_eager")
    images = torch.randn(2, 3, 64, 64)
    for backbone in (plain, recomputed):
        (backbone(images)[-1] ** 2).mean().backward()
    for (key, ours), theirs in zip(recomputed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=key, rtol=1e-4, atol=1e-5)
    for (key, ours), theirs in zip(recomputed.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=key)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("resnet10t", [f"layer{number}.0.conv1" for number in (1, 2, 3, 4)]), ("test_efficientnet", ["blocks.0", "blocks.1", "blocks.2"])],
)
def test_stages_are_recomputed_one_by_one(name: str, parts: list[str]) -> None:
    backbone = Backbone(name, output_stride=16).train()
    backbone.recompute = True
    seen: list[str] = []
    for part in parts:
        module = backbone.body.get_submodule(part)
        inner = next(child for child in module.modules() if isinstance(child, nn.Conv2d))
        inner.register_forward_hook(lambda *_, part=part: seen.append(part))
    images = torch.randn(2, 3, 64, 64)
    loss = backbone(images)[-1].mean()
    loss.backward()
    assert seen == [*parts, *reversed(parts)]
    seen.clear()
    backbone.eval()(images)[-1].mean().backward()
    assert seen == parts


def test_resnet_v1_strides_on_the_first_1x1() -> None:
    for output_stride, strided in ((8, ["layer2.0"]), (16, ["layer2.0", "layer3.0"])):
        body = Backbone("resnet50", output_stride=output_stride, stride_on="conv1").body
        assert [n for n in ("layer2.0", "layer3.0", "layer4.0") if body.get_submodule(f"{n}.conv1").stride == (2, 2)] == strided
        assert all(body.get_submodule(f"{n}.conv2").stride == (1, 1) for n in strided)


def test_in_channels() -> None:
    assert Backbone("resnet18", in_channels=5).eval()(torch.randn(1, 5, 32, 32))[0].shape[1] == 64
