"""A network of the user's own: padded as it needs, split into backbone and head, and never run because a file says so."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.core.settings import ModelSettings, OptimizerSettings
from seenet.data.camvid import CAMVID11
from seenet.model import Backbone, create_model
from seenet.model.files import card_of, from_card, load_model, save_model
from seenet.model.segmenter import Normalization
from seenet.model.summary import summarize
from seenet.prediction.loading import load
from seenet.training.optim import build_optimizer

HERE = "tests.model.test_factory"


class Hourglass(nn.Module):
    """Halves its input so often that only multiples of 2 ** depth come back to their size, as a U-Net without padding does."""

    def __init__(self, num_classes: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.decoder = nn.Conv2d(4, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = features = self.encoder(x)
        for _ in range(self.depth):
            x = nn.functional.avg_pool2d(x, 2)
        x = x.repeat_interleave(2**self.depth, 2).repeat_interleave(2**self.depth, 3)
        out: Tensor = self.decoder(x + features)
        return out


class WithAuxiliary(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, num_classes, 3, stride=4, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.scores(x)
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


def on_ours(num_classes: int) -> nn.Module:
    return OnOurs(num_classes)


def any_size(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, num_classes, 1)
    )


def by_8(num_classes: int) -> nn.Module:
    return Hourglass(num_classes, 3)


def by_32(num_classes: int) -> nn.Module:
    return Hourglass(num_classes, 5)


def with_auxiliary(num_classes: int) -> nn.Module:
    return WithAuxiliary(num_classes)


def attention(num_classes: int) -> nn.Module:
    """Its work is a transposed convolution, which is no Conv2d."""
    return nn.ConvTranspose2d(3, num_classes, 2, stride=2)


def of_21(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, 21, 1)


def broken(num_classes: int) -> nn.Module:
    raise RuntimeError("no such file: weights.pth")


def no_module(num_classes: int) -> object:
    return lambda images: images


def image_level(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, num_classes, 1), nn.BatchNorm2d(num_classes)
    )


@pytest.mark.parametrize(
    ("factory", "multiple"), [("any_size", 1), ("by_8", 8), ("by_32", 32), ("with_auxiliary", 1)]
)
def test_padded_as_needed(factory: str, multiple: int) -> None:
    model = create_model(factory=f"{HERE}:{factory}", num_classes=11).eval()
    assert model.pad_multiple == multiple
    with torch.no_grad():
        assert model(torch.randn(1, 3, 37, 53)).shape == (1, 11, 37, 53)
        assert model(torch.randn(1, 3, 37, 53), size=(20, 9)).shape == (1, 11, 20, 9)


def test_auxiliary_scores() -> None:
    features = create_model(
        factory=f"{HERE}:with_auxiliary", num_classes=11, auxiliary=True
    ).forward_features(torch.randn(2, 3, 40, 40))
    assert set(features) == {"logits", "auxiliary"}
    torch.testing.assert_close(features["auxiliary"], 2 * features["logits"])
    with pytest.raises(UsageError, match=r"loss\.auxiliary wants scores under `aux`"):
        create_model(factory=f"{HERE}:any_size", num_classes=11, auxiliary=True).train()(
            torch.randn(2, 3, 40, 40)
        )


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            f"{HERE}:of_21",
            r"gives a tensor 1x21x37x35 for 1 image\(s\), expected scores 1 x 11 x h x w",
        ),
        (f"{HERE}:broken", "failed with RuntimeError: no such file: weights.pth"),
        (f"{HERE}:no_module", "gave a function, expected a torch.nn.Module"),
        (f"{HERE}:HERE", "not callable"),
        (f"{HERE}:absent", "cannot be imported"),
        ("no.such.module:make", "cannot be imported"),
        ("tests", "expected package.module:callable"),
    ],
)
def test_wrong_factories(factory: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        create_model(factory=factory, num_classes=11)
    assert "\n" not in str(caught.value)


def test_one_image_where_one_point_is_normalised() -> None:
    with pytest.raises(UsageError, match="at least 2 images"):
        create_model(factory=f"{HERE}:image_level", num_classes=11).train()(
            torch.randn(1, 3, 40, 40)
        )


def test_backbone_and_head_have_their_rates() -> None:
    settings = OptimizerSettings(rate=0.1, head_factor=4)
    model = create_model(factory=f"{HERE}:by_8", num_classes=11)
    rates = {
        group["lr"]: sum(p.numel() for p in group["params"])
        for group in build_optimizer(model, settings).param_groups
    }
    assert set(rates) == {0.1, 0.4}
    assert sum(
        p.numel() for g in build_optimizer(model, settings).param_groups for p in g["params"]
    ) == sum(p.numel() for p in model.parameters())
    # Without a part named backbone or encoder there is one rate.
    plain = create_model(factory=f"{HERE}:any_size", num_classes=11)
    assert {group["lr"] for group in build_optimizer(plain, settings).param_groups} == {0.1}
    assert len(model.backbone.norms()) == len(plain.backbone.norms()) == 1
    with pytest.raises(UsageError, match="freeze_stages"):
        model.backbone.stage_modules()
    with pytest.raises(UsageError, match="activation_checkpointing"):
        model.backbone.recompute = True


def test_cost_counts_what_is_no_plain_convolution() -> None:
    (part,) = summarize(create_model(factory=f"{HERE}:attention", num_classes=5), 10, 12)
    assert part.name == "logits"
    assert part.flops == 2 * (10 * 12 * 3) * (2 * 2 * 5)


def test_a_file_never_chooses_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its metadata nor the recipe beside it; only the caller's own word, and only the same."""
    (tmp_path / "lurking.py").write_text(
        "import torch\nmake = lambda num_classes: torch.nn.Conv2d(3, num_classes, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    save_model(
        run / "model.safetensors", create_model(factory="lurking:make", num_classes=11), CAMVID11
    )
    (run / "recipe.yaml").write_text("model: {factory: 'lurking:make'}\n")
    del sys.modules["lurking"]
    with pytest.raises(UsageError, match=r"model\.factory=lurking:make; that is code.*--factory"):
        load_model(run)
    with pytest.raises(UsageError, match="not of os:system"):
        load_model(run, factory="os:system")
    assert "lurking" not in sys.modules
    saved = load_model(run, factory="lurking:make")
    predictor = load(run, device="cpu", factory="lurking:make")
    picture = torch.zeros(5, 7, 3, dtype=torch.uint8).numpy()
    assert (
        predictor.mask(picture).shape == (5, 7) and saved.model.options["factory"] == "lurking:make"
    )
    ours = tmp_path / "ours.safetensors"
    save_model(ours, create_model("baseline", backbone="resnet10t", num_classes=11), CAMVID11)
    with pytest.raises(UsageError, match=r"holds no network of model\.factory"):
        load_model(ours, factory="lurking:make")


def test_settings() -> None:
    assert ModelSettings.model_validate({"factory": "a:b"}).variant == "factory"
    read_back = ModelSettings.model_validate(
        ModelSettings.model_validate({"factory": "a:b"}).model_dump()
    )
    assert read_back.factory == "a:b"
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
    name = f"{HERE}:on_ours"
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
    model = create_model(factory=f"{HERE}:on_ours", num_classes=11)
    assert model.pad_multiple == 32
    assert model(torch.randn(2, 3, 37, 53)).shape == (2, 11, 37, 53)


def test_weights_whose_blocks_stride_elsewhere(tmp_path: Path) -> None:
    ours = create_model("baseline", backbone="resnet10t", num_classes=11, stride_on="conv1")
    save_model(tmp_path / "v1.safetensors", ours, CAMVID11)
    with pytest.raises(UsageError, match=r"Backbone\('resnet10t', stride_on='conv1'\)"):
        create_model(factory=f"{HERE}:on_ours", weights=str(tmp_path / "v1.safetensors"))
