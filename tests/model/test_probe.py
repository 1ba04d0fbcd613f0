"""A probe sees what the network sees at that stage, and computes nothing above."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seenet.core.errors import DataError, UsageError
from seenet.data.camvid import CAMVID11
from seenet.model import Segmenter
from seenet.model.files import save_model
from seenet.model.probe import PROBES, probes_of
from tests.model.networks import images, small, spread_norms


def saved(path: Path, variant: str = "seenet", **options: object) -> Segmenter:
    """Build a network with norms of its own, and save it."""
    model = spread_norms(small(variant, **options))
    save_model(path, model, CAMVID11)
    return model


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [("resnet10t", 8), ("tf_efficientnet_lite0", 16), ("convnext_atto", 16), ("resnet10t", 32)],
)
def test_stages_are_those_of_the_network(tmp_path: Path, backbone: str, output_stride: int) -> None:
    path = tmp_path / "model.safetensors"
    options = {"backbone": backbone, "output_stride": output_stride}
    with torch.no_grad():
        expected = saved(path, **options).forward_features(images(70, 53))
        for name, inputs in PROBES.items():
            probe = small(**options, probe=name, weights=str(path)).eval()
            features = probe.forward_features(images(70, 53))
            assert features.keys() == {"B1", "B2", "logits", *inputs}
            logits = by_hand(probe, [expected[key] for key in inputs])
            torch.testing.assert_close(features.pop("logits"), logits)
            for key, value in features.items():
                assert torch.equal(value, expected[key]), key


def by_hand(probe: Segmenter, inputs: list[Tensor]) -> Tensor:
    """Compute the logits of an image of 70 x 53 from one or two stages."""
    conv = probe.head[0][0]
    assert conv.weight.shape[0] == 256 and conv.weight.shape[2:] == (3, 3)
    x, last = inputs[0], inputs[-1]
    if x.shape[-2:] != last.shape[-2:]:
        # Means of 2x2 points; of an odd side the last point has no neighbour.
        padded = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=float("nan"))
        inputs = [padded.unfold(2, 2, 2).unfold(3, 2, 2).nanmean((-2, -1)), last]
    scores = probe.head(torch.cat(inputs, dim=1))
    size = tuple(side + -side % probe.pad_multiple for side in (70, 53))
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)[..., :70, :53]


@pytest.mark.parametrize(
    "backbone",
    ["resnet10t", "tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_050", "regnetx_002"],
)
@pytest.mark.parametrize(("name", "stages"), [("EB2", 2), ("B3+B2", 3)])
def test_nothing_is_computed_above_the_probe(backbone: str, name: str, stages: int) -> None:
    """Every parameter has a gradient in joint training, as training in several processes needs."""
    probe = small(backbone=backbone, probe=name, output_stride=16)
    probe(images(48, 48, 2)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in probe.parameters())
    assert len(probe.backbone.stage_modules()) == stages


def test_probes_of_a_variant() -> None:
    assert probes_of("seenet") == probes_of("pfp") == list(PROBES)
    for variant in ("baseline", "seem-fs", "smp-fpn"):
        assert probes_of(variant) == ["B2", "B3", "B3+B2"]
    assert small("torchvision-fcn", probe="B3+B2")(images(48, 48, 2)).shape == (2, 5, 48, 48)
    assert small("pfp", probe="EB2").P2.out_channels == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "B4"}, "nearest|choose from"),
        ({"probe": "EB2", "variant": "baseline"}, "expected one of B2, B3, B3"),
        ({"probe": "EB2", "variant": "smp-fpn"}, "smp-fpn has no enhanced B2"),
        ({"probe": "B2", "auxiliary": True}, r"loss\.auxiliary=0"),
        ({"probe": "B2", "factory": "a:b"}, "whose stages and modules are not known"),
    ],
)
def test_wrong_probes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small(**options)


def test_enhancement_is_loaded_whole_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    for options, reason in (({"variant": "baseline"}, "Missing key"), ({"width": 16}, "size mism")):
        saved(path, **options)
        with pytest.raises(DataError, match=rf"its pyramid\.P2 does not fit \({reason}"):
            small(probe="EB2", weights=str(path))
    caplog.set_level("INFO", logger="seenet")
    small(probe="EB2")
    assert "pyramid.P2: random weights" in caplog.text
