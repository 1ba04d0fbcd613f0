"""A network of the user's own: padded as it needs, and never run because a file names it."""

import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.core.settings import ModelSettings, OptimizerSettings
from seenet.data.camvid import CAMVID11
from seenet.model import Backbone, Segmenter, create_model
from seenet.model.files import card_of, from_card, load_model, save_model
from seenet.model.segmenter import Normalization
from seenet.model.summary import summarize
from seenet.prediction.loading import load
from seenet.training.optim import build_optimizer
from tests.model.networks import images, small

HERE = "tests.model.test_factory"


class WithAuxiliary(nn.Conv2d):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = super().forward(x)
        return OrderedDict(out=scores, aux=2 * scores)


class OnOurs(nn.Module):
    """A classifier on our backbone."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = Backbone("resnet10t", output_stride=32)
        self.head = nn.Conv2d(self.backbone.channels[3], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.backbone(x)[3])
        return scores


def any_size(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, num_classes, 1)
    )


def with_auxiliary(num_classes: int) -> nn.Module:
    return WithAuxiliary(3, num_classes, 3, stride=4, padding=1)


def transposed(num_classes: int) -> nn.Module:
    return nn.ConvTranspose2d(3, num_classes, 2, stride=2)


def of_21_classes(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, 21, 1)


def hourglass(num_classes: int, side: int) -> nn.Module:
    """Return a network that takes only sides that divide by `side`, as an unpadded U-Net does."""
    parts = (nn.PixelUnshuffle(side), nn.PixelShuffle(side), nn.Conv2d(3, 4, 3, padding=1))
    encoder = nn.Sequential(*parts, nn.BatchNorm2d(4))
    return nn.Sequential(OrderedDict(encoder=encoder, decoder=nn.Conv2d(4, num_classes, 1)))


by_8, by_32 = partial(hourglass, side=8), partial(hourglass, side=32)


def made(factory: str, **options: object) -> Segmenter:
    return create_model(factory=f"{HERE}:{factory}", num_classes=11, **options)


@pytest.mark.parametrize(
    ("factory", "multiple"), [("any_size", 1), ("by_8", 8), ("by_32", 32), ("with_auxiliary", 1)]
)
def test_padding_is_what_the_network_needs(factory: str, multiple: int) -> None:
    model = made(factory).eval()
    assert model.pad_multiple == multiple
    with torch.no_grad():
        assert model(images(37, 53)).shape == (1, 11, 37, 53)
        assert model(images(37, 53), size=(20, 9)).shape == (1, 11, 20, 9)


def test_auxiliary_scores() -> None:
    features = made("with_auxiliary", auxiliary=True).forward_features(images(40, 40, 2))
    assert set(features) == {"logits", "auxiliary"}
    torch.testing.assert_close(features["auxiliary"], 2 * features["logits"])
    with pytest.raises(UsageError, match=r"loss\.auxiliary needs scores under `aux`"):
        made("any_size", auxiliary=True)(images(40, 40, 2))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (f"{HERE}:of_21_classes", r"shape 1x21x37x35 for .*expected scores 1 x 11 x h x w"),
        ("math:sqrt", r"failed with TypeError: math\.sqrt"),
        ("builtins:dict", "returned a dict, expected a torch.nn.Module"),
        (f"{HERE}:HERE", "not callable"),
        (f"{HERE}:absent", "cannot be imported"),
        ("no.such.module:make", "cannot be imported"),
        ("tests", "expected package.module:callable"),
    ],
)
def test_wrong_factories(factory: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"{message}[^\n]*$"):
        create_model(factory=factory, num_classes=11)


def test_backbone_and_head_have_their_own_rates() -> None:
    split, whole = made("by_8"), made("any_size")
    # Without an attribute `backbone` or `encoder` there is one rate.
    for model, rates in ((split, {0.1, 0.4}), (whole, {0.1})):
        groups = build_optimizer(model, OptimizerSettings(rate=0.1, head_factor=4)).param_groups
        assert {group["lr"] for group in groups} == rates
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    # Training in several processes converts the norms.
    assert len(split.backbone.norms()) == len(convert_sync_batchnorm(whole).backbone.norms()) == 1
    with pytest.raises(UsageError, match="freeze_stages"):
        split.backbone.stage_modules()
    with pytest.raises(UsageError, match="activation_checkpointing"):
        split.backbone.recompute = True


def test_cost_includes_transposed_convolutions() -> None:
    (part,) = summarize(made("transposed"), 10, 12)
    assert (part.name, part.flops) == ("logits", 2 * (10 * 12 * 3) * (2 * 2 * 11))


def test_a_file_never_chooses_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its metadata nor the recipe beside it; only the caller, with the same name."""
    (tmp_path / "lurking.py").write_text(
        "import torch\nmake = lambda num_classes: torch.nn.Conv2d(3, num_classes, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = create_model(factory="lurking:make", num_classes=11)
    save_model(tmp_path / "model.safetensors", model, CAMVID11)
    (tmp_path / "recipe.yaml").write_text("model: {factory: 'lurking:make'}\n")
    del sys.modules["lurking"]
    for factory in (None, "os:system"):
        with pytest.raises(UsageError, match=r"lurking:make.* that is code.*--factory"):
            load_model(tmp_path, factory=factory)
    assert "lurking" not in sys.modules
    predictor = load(tmp_path, device="cpu", factory="lurking:make")
    assert predictor.mask(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7)


def test_a_factory_for_a_file_without_one(tmp_path: Path) -> None:
    save_model(tmp_path / "ours.safetensors", small("baseline"), CAMVID11)
    with pytest.raises(UsageError, match=r"holds no network of model\.factory"):
        load_model(tmp_path / "ours.safetensors", factory="lurking:make")


def test_settings() -> None:
    settings = ModelSettings.model_validate({"factory": "a:b"})
    assert (settings.variant, settings.factory) == ("factory", "a:b")
    ModelSettings.model_validate(settings.model_dump())
    for values in ({"variant": "pfp", "factory": "a:b"}, {"variant": "factory"}):
        with pytest.raises(ValueError, match="factory"):
            ModelSettings.model_validate(values)
    with pytest.raises(UsageError, match=r"weights=imagenet: .* no seenet\.model\.Backbone"):
        create_model(factory=f"{HERE}:any_size", weights="imagenet")


def test_a_backbone_of_ours_starts_and_trains_as_in_our_networks(tmp_path: Path) -> None:
    """It takes weights with their normalisation, which stay; its stages are known."""
    start, path = tmp_path / "start.safetensors", tmp_path / "model.safetensors"
    ours = create_model("baseline", backbone="resnet10t", num_classes=11)
    ours.normalization = Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    save_model(start, ours, CAMVID11)
    name = f"{HERE}:OnOurs"
    model = create_model(factory=name, num_classes=11, weights=str(start))
    assert model.normalization == ours.normalization
    found = model.state_dict()
    expected = {k: v for k, v in ours.state_dict().items() if k.startswith("backbone.")}
    assert expected
    assert all(torch.equal(found[f"network.{key}"], value) for key, value in expected.items())
    save_model(path, model, CAMVID11)
    start.unlink()
    assert load_model(path, factory=name).model.normalization == ours.normalization
    assert from_card(card_of(model), factory=name).normalization == ours.normalization
    stages = model.backbone.stage_modules()
    assert len(stages) == 4 and len(model.backbone.norms()) == len(ours.backbone.norms())
    model.backbone.recompute = True
    assert model.backbone.recompute and model.network.backbone.recompute  # type: ignore[union-attr]
    (part,) = summarize(model, 40, 50)
    assert part.parameters == sum(parameter.numel() for parameter in model.parameters())
    plain = create_model(factory=name, num_classes=11)
    assert plain.normalization == create_model("baseline", backbone="resnet10t").normalization


def test_a_backbone_that_pads_is_padded_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its grid would be that of the padded picture, and the scores shifted."""
    made = Backbone("resnet10t", output_stride=32)
    made.pad_multiple = 32
    monkeypatch.setattr(sys.modules[HERE], "Backbone", lambda *_, **__: made)
    model = create_model(factory=f"{HERE}:OnOurs", num_classes=11)
    assert model.pad_multiple == 32
    assert model(torch.randn(2, 3, 37, 53)).shape == (2, 11, 37, 53)


def test_weights_whose_blocks_stride_elsewhere(tmp_path: Path) -> None:
    ours = create_model("baseline", backbone="resnet10t", num_classes=11, stride_on="conv1")
    save_model(tmp_path / "v1.safetensors", ours, CAMVID11)
    with pytest.raises(UsageError, match=r"Backbone\('resnet10t', stride_on='conv1'\)"):
        create_model(factory=f"{HERE}:OnOurs", weights=str(tmp_path / "v1.safetensors"))
