"""Peers are the libraries' own networks on our backbone: equal to theirs where ours adds nothing, any size where it adds padding."""

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50

from seenet.core.errors import UsageError
from seenet.data.camvid import CAMVID11
from seenet.model import PEERS, create_model
from seenet.model.files import load_model, save_model
from seenet.model.summary import dead_taps, summarize

SMALL = {"backbone": "resnet10t", "num_classes": 11}


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def randomize_norms(model: nn.Module) -> nn.Module:
    """Batch norms with statistics and parameters that are not those of the start, so that a swapped one is seen."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("variant", "builder"), [("torchvision-fcn", fcn_resnet50), ("torchvision-deeplabv3", deeplabv3_resnet50)])
def test_torchvision_whole(variant: str, builder: object) -> None:
    whole = randomize_norms(builder(weights=None, weights_backbone=None, num_classes=5))  # type: ignore[operator]
    ours = create_model(variant, backbone="resnet50", num_classes=5).eval()
    ours.backbone.body.load_state_dict(whole.backbone.state_dict())
    ours.head.load_state_dict(whole.classifier.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(images(45, 61)), whole(images(45, 61))["out"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "builder", "stride", "options"),
    [
        ("smp-fpn", smp.FPN, 32, {}),
        ("smp-upernet", smp.UPerNet, 32, {}),
        ("smp-deeplabv3plus", smp.DeepLabV3Plus, 16, {"encoder_output_stride": 16, "decoder_atrous_rates": (6, 12, 18)}),
        ("smp-deeplabv3plus", smp.DeepLabV3Plus, 8, {"encoder_output_stride": 8}),
    ],
)
def test_segmentation_models_whole(variant: str, builder: object, stride: int, options: dict[str, object]) -> None:
    whole = randomize_norms(builder("tu-resnet10t", encoder_weights=None, classes=11, **options))  # type: ignore[operator]
    ours = create_model(variant, **SMALL, output_stride=stride).eval()
    ours.backbone.body.load_state_dict(whole.encoder.model.state_dict())
    ours.decoder.load_state_dict(whole.decoder.state_dict())
    ours.head.load_state_dict(whole.segmentation_head.state_dict())
    pictures = images(64, 96)
    with torch.no_grad():
        # Their own upsampling has align_corners=True; ours takes the scores before it.
        scores = F.interpolate(ours._features(pictures)["scores"], scale_factor=4, mode="bilinear", align_corners=True)
        torch.testing.assert_close(scores, whole(pictures), rtol=1e-4, atol=1e-4)


def test_pspnet_pools_the_last_stage() -> None:
    """The library's whole PSPNet stops at stride 8 of an undilated encoder; ours stands on B4, as the paper's (Zhao et al. 2017)."""
    ours = create_model("smp-pspnet", **SMALL).eval()
    with torch.no_grad():
        features = ours.forward_features(images(64, 64))
        scores = ours.head(ours.decoder([features["B4"]]))
    torch.testing.assert_close(ours._features(images(64, 64))["scores"], scores)
    assert ours.decoder.psp.blocks[0].pool[1][0].in_channels == ours.backbone.channels[3]


@pytest.mark.parametrize("variant", PEERS)
def test_any_size_and_every_parameter(variant: str) -> None:
    model = create_model(variant, **SMALL, output_stride=16, auxiliary=True)
    model.eval()
    with torch.no_grad():
        for height, width in ((37, 53), (1, 1), (64, 96)):
            assert model(images(height, width)).shape == (1, 11, height, width)
        assert model(images(37, 53), size=(20, 31)).shape == (1, 11, 20, 31)
    model.train()
    features = model.forward_features(images(37, 53, 2))
    assert features["logits"].shape == features["auxiliary"].shape == (2, 11, 37, 53)
    (features["logits"].square().mean() + features["auxiliary"].square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("variant", "multiple"), [("smp-fpn", 32), ("smp-deeplabv3plus", 16)])
def test_padding_is_zeros_behind_the_picture(variant: str, multiple: int) -> None:
    model = create_model(variant, **SMALL, output_stride=16).eval()
    assert model.pad_multiple == multiple
    picture = images(40, 50)
    with torch.no_grad():
        by_hand = model(F.pad(picture, (0, 64 - 50, 0, 64 - 40 if multiple == 32 else 48 - 40)))[..., :40, :50]
        torch.testing.assert_close(model(picture), by_hand)


@pytest.mark.parametrize("variant", ["torchvision-deeplabv3", "smp-deeplabv3plus", "smp-upernet"])
def test_one_image_cannot_train_where_one_point_is_normalised(variant: str) -> None:
    with pytest.raises(UsageError, match="at least 2 images"):
        create_model(variant, **SMALL).train()(images(64, 64))


def test_output_strides(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="seenet")
    assert create_model("smp-fpn", **SMALL).backbone.strides == (4, 8, 16, 32)
    assert "smp-fpn: output stride 32" in caplog.text
    assert create_model("smp-pspnet", **SMALL, output_stride=8).backbone.strides == (4, 8, 8, 8)
    with pytest.raises(UsageError, match=r"output_stride=32: smp-deeplabv3plus takes 8 or 16"):
        create_model("smp-deeplabv3plus", **SMALL, output_stride=32)


def test_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seenet.model.baselines.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[baselines\]'"):
        create_model("smp-fpn", **SMALL)
    create_model("torchvision-fcn", **SMALL)


@pytest.mark.parametrize("variant", ["torchvision-deeplabv3", "smp-fpn"])
def test_model_file_and_cost(variant: str, tmp_path: Path) -> None:
    model = randomize_norms(create_model(variant, **SMALL))
    save_model(tmp_path / "peer.safetensors", model, CAMVID11)
    loaded = load_model(tmp_path / "peer.safetensors").model
    with torch.no_grad():
        torch.testing.assert_close(loaded(images(40, 50)), model(images(40, 50)), rtol=0, atol=0)
    parts = summarize(model, 64, 64)
    assert [part.name for part in parts] == ["B1", "B2", "B3", "B4", "logits"]
    assert sum(part.parameters for part in parts) == sum(parameter.numel() for parameter in model.parameters())
    assert all(part.flops > 0 for part in parts)
    # Another peer, and SeENet too, can start from this one's backbone.
    other = create_model("seenet", **SMALL, width=8, p_out=16, weights=str(tmp_path / "peer.safetensors"))
    own = model.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in other.backbone.state_dict().items() if value.is_floating_point())


def test_damaged_metadata_is_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from seenet.core.errors import DataError

    for options in ([], {"variant": "smp-fpn"}):
        card = {"format": 1, "options": options, "normalization": {}, "labels": {}, "notes": {}}
        save_file({"x": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata={"seenet": json.dumps(card)})
        with pytest.raises(DataError, match="damaged or foreign"):
            load_model(tmp_path / "bad.safetensors")


def test_dead_taps_of_a_peer() -> None:
    model = create_model("torchvision-deeplabv3", **SMALL)
    assert dead_taps(model, (256, 256)) == ["ASPP: rates 36 on a 32x32 grid never see data off their centre"]
