"""A probe sees exactly what the network saw at that stage, by a head that is written out by hand, and computes nothing above."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seenet.core.errors import DataError, UsageError
from seenet.data.camvid import CAMVID11
from seenet.model import Segmenter, create_model
from seenet.model.files import load_model, save_model
from seenet.model.probe import PROBES, probes_of
from seenet.model.summary import dead_taps, summarize
from tests.model.test_baselines import images, randomize_norms

SMALL = {"backbone": "resnet10t", "num_classes": 11, "width": 8, "p_out": 16}


def trained(path: Path, variant: str = "seenet", **options: object) -> Segmenter:
    """A network whose norms have statistics of their own, and its file."""
    model = randomize_norms(create_model(variant, **{**SMALL, **options}))
    save_model(path, model, CAMVID11)
    return model


@pytest.mark.parametrize(
    ("backbone", "output_stride"), [("resnet10t", 8), ("tf_efficientnet_lite0", 16), ("convnext_atto", 16), ("resnet10t", 32)]
)
def test_stages_are_the_networks_own(tmp_path: Path, backbone: str, output_stride: int) -> None:
    options = {"backbone": backbone, "output_stride": output_stride}
    source = trained(tmp_path / "model.safetensors", **options)
    picture = images(70, 53)
    with torch.no_grad():
        expected = source.forward_features(picture)
        for name, parts in PROBES.items():
            probe = create_model(**{**SMALL, **options}, probe=name, weights=str(tmp_path / "model.safetensors")).eval()
            found = probe.forward_features(picture)
            assert found.keys() == {"B1", "B2", "logits", *parts}
            assert all(torch.equal(found[key], expected[key]) for key in found if key != "logits"), name
            torch.testing.assert_close(found["logits"], by_hand(probe, [expected[part] for part in parts], picture))


def by_hand(probe: Segmenter, parts: list[Tensor], picture: Tensor) -> Tensor:
    unit, classify = probe.head
    assert unit[0].weight.shape[0] == 256 and unit[0].weight.shape[2:] == (3, 3)
    rows, columns = parts[-1].shape[-2:]
    if parts[0].shape[-2:] != (rows, columns):
        pooled = torch.zeros(1, parts[0].shape[1], rows, columns)
        for y in range(rows):
            for x in range(columns):
                pooled[..., y, x] = parts[0][..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((-2, -1))
        parts = [pooled, *parts[1:]]
    hidden = F.conv2d(torch.cat(parts, dim=1), unit[0].weight, padding=1)
    hidden = F.batch_norm(hidden, unit[1].running_mean, unit[1].running_var, unit[1].weight, unit[1].bias).relu()
    scores = F.conv2d(hidden, classify.weight, classify.bias)
    below, right = (-side % probe.pad_multiple for side in picture.shape[-2:])
    size = (picture.shape[2] + below, picture.shape[3] + right)
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)[..., : picture.shape[2], : picture.shape[3]]


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_050", "regnetx_002"])
def test_nothing_stands_above(backbone: str) -> None:
    """So that in joint training every parameter has a gradient, as training in several processes needs."""
    for name in ("EB2", "B3+B2"):
        probe = create_model(**{**SMALL, "backbone": backbone}, probe=name, output_stride=16).train()
        probe(images(48, 48, 2)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in probe.parameters())
        assert len(probe.backbone.stage_modules()) == (2 if name == "EB2" else 3)


def test_which_probes_a_variant_has() -> None:
    assert probes_of("seenet") == probes_of("pfp") == list(PROBES)
    assert probes_of("baseline") == probes_of("seem-fs") == probes_of("smp-fpn") == ["B2", "B3", "B3+B2"]
    assert create_model("torchvision-fcn", **SMALL, probe="B3+B2").forward_features(images(48, 48, 2))["logits"].shape[1] == 11
    assert create_model("pfp", **SMALL, probe="EB2").P2.out_channels == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "B4"}, "nearest|choose from"),
        ({"probe": "EB2", "variant": "baseline"}, "expected one of B2, B3, B3"),
        ({"probe": "EB2", "variant": "smp-fpn"}, "smp-fpn has no enhanced B2"),
        ({"probe": "B2", "auxiliary": True}, r"loss\.auxiliary=0"),
        ({"probe": "B2", "factory": "a:b"}, "network of model.factory=a:b, whose stages and modules are not known"),
    ],
)
def test_wrong_probes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(**{**SMALL, **options})


def test_enhancement_comes_whole_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.safetensors"
    trained(path, "baseline")
    with pytest.raises(DataError, match=r"its pyramid\.P2 does not fit \(Missing key"):
        create_model(**SMALL, probe="EB2", weights=str(path))
    trained(path)
    with pytest.raises(DataError, match=r"its pyramid\.P2 does not fit \(size mismatch"):
        create_model(**{**SMALL, "width": 16}, probe="EB2", weights=str(path))
    caplog.set_level("INFO", logger="seenet")
    create_model(**SMALL, probe="EB2")
    assert "pyramid.P2: random weights" in caplog.text


def test_model_file_cost_and_dead_taps(tmp_path: Path) -> None:
    probe = randomize_norms(create_model(**SMALL, probe="B3+EB2", output_stride=16))
    save_model(tmp_path / "probe.safetensors", probe, CAMVID11)
    loaded = load_model(tmp_path / "probe.safetensors").model
    with torch.no_grad():
        assert torch.equal(loaded(images(40, 50)), probe(images(40, 50)))
    parts = summarize(probe, 64, 64)
    assert [part.name for part in parts] == ["B1", "B2", "B3", "P2", "logits"]
    assert sum(part.parameters for part in parts) == sum(parameter.numel() for parameter in probe.parameters())
    assert dead_taps(probe, (64, 64)) == ["P2: rates 8 on a 8x8 grid never see data off their centre"]


def test_one_point_is_too_few_to_train_on() -> None:
    with pytest.raises(UsageError, match="grid of one point"):
        create_model(**SMALL, probe="B2").train()(images(8, 8))
