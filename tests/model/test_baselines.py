"""Peers are the libraries' networks on our backbone: equal to theirs, and padded at other sizes."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50, fcn_resnet50

from seenet.core.errors import UsageError
from seenet.model import PEERS, create_model
from tests.model.networks import images, small, spread_norms


@pytest.mark.parametrize(
    ("variant", "builder"),
    [("torchvision-fcn", fcn_resnet50), ("torchvision-deeplabv3", deeplabv3_resnet50)],
)
def test_equal_to_torchvision(variant: str, builder: object) -> None:
    whole = spread_norms(builder(weights=None, weights_backbone=None, num_classes=5))  # type: ignore[operator]
    ours = create_model(variant, backbone="resnet50", num_classes=5).eval()
    ours.backbone.body.load_state_dict(whole.backbone.state_dict())
    ours.head.load_state_dict(whole.classifier.state_dict())
    with torch.no_grad():
        expected = whole(images(45, 61))["out"]
        torch.testing.assert_close(ours(images(45, 61)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "builder", "stride", "options"),
    [
        ("smp-fpn", smp.FPN, 32, {}),
        ("smp-upernet", smp.UPerNet, 32, {}),
        (
            "smp-deeplabv3plus",
            smp.DeepLabV3Plus,
            16,
            {"encoder_output_stride": 16, "decoder_atrous_rates": (6, 12, 18)},
        ),
        ("smp-deeplabv3plus", smp.DeepLabV3Plus, 8, {"encoder_output_stride": 8}),
    ],
)
def test_equal_to_segmentation_models(
    variant: str, builder: object, stride: int, options: dict[str, object]
) -> None:
    whole = spread_norms(builder("tu-resnet10t", encoder_weights=None, classes=5, **options))  # type: ignore[operator]
    ours = small(variant, output_stride=stride).eval()
    ours.backbone.body.load_state_dict(whole.encoder.model.state_dict())
    ours.decoder.load_state_dict(whole.decoder.state_dict())
    ours.head.load_state_dict(whole.segmentation_head.state_dict())
    with torch.no_grad():
        # Their own upsampling has align_corners=True; compare the scores before ours.
        scores = ours(images(64, 96), own_grid=True)
        scores = F.interpolate(scores, scale_factor=4, mode="bilinear", align_corners=True)
        torch.testing.assert_close(scores, whole(images(64, 96)), rtol=1e-4, atol=1e-4)


def test_pspnet_pools_b4() -> None:
    """The library's PSPNet ends at stride 8 of an undilated encoder; ours is the paper's (2017)."""
    ours = small("smp-pspnet").eval()
    with torch.no_grad():
        b4 = ours.forward_features(images(64, 64))["B4"]
        scores = ours(images(64, 64), own_grid=True)
        torch.testing.assert_close(scores, ours.head(ours.decoder([b4])))


@pytest.mark.parametrize("variant", PEERS)
def test_any_size_and_every_parameter(variant: str) -> None:
    model = small(variant, output_stride=16, auxiliary=True).eval()
    with torch.no_grad():
        for height, width in ((37, 53), (1, 1), (64, 96)):
            assert model(images(height, width)).shape == (1, 5, height, width)
        assert model(images(37, 53), size=(20, 31)).shape == (1, 5, 20, 31)
    features = model.train().forward_features(images(37, 53, 2))
    assert features["logits"].shape == features["auxiliary"].shape == (2, 5, 37, 53)
    (features["logits"].square().mean() + features["auxiliary"].square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("variant", "multiple", "padded"),
    [("smp-fpn", 32, (64, 64)), ("smp-deeplabv3plus", 16, (48, 64))],
)
def test_images_are_padded_with_zeros(variant: str, multiple: int, padded: tuple[int, int]) -> None:
    model = small(variant, output_stride=16).eval()
    assert model.pad_multiple == multiple
    by_hand = F.pad(images(40, 50), (0, padded[1] - 50, 0, padded[0] - 40))
    with torch.no_grad():
        torch.testing.assert_close(model(images(40, 50)), model(by_hand)[..., :40, :50])


@pytest.mark.parametrize("variant", ["torchvision-deeplabv3", "smp-deeplabv3plus", "smp-upernet"])
def test_one_image_cannot_train_where_batch_norm_sees_one_point(variant: str) -> None:
    with pytest.raises(UsageError, match="at least 2 images"):
        small(variant)(images(64, 64))


def test_output_strides() -> None:
    assert small("smp-fpn", output_stride=8).backbone.strides == (4, 8, 16, 32)
    assert small("smp-pspnet", output_stride=8).backbone.strides == (4, 8, 8, 8)
    with pytest.raises(UsageError, match=r"output_stride=32: smp-deeplabv3plus takes 8 or 16"):
        small("smp-deeplabv3plus", output_stride=32)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seenet.model.baselines.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[baselines\]'"):
        small("smp-fpn")
    small("torchvision-fcn")
