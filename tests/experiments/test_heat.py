import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from seenet.core.errors import DataError
from seenet.data.shapes import SHAPES
from seenet.experiments import heat
from seenet.experiments.heat import added, heat_figure, heat_map, read_truth
from seenet.model import PEERS, VARIANTS
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import FirstChannel
from tests.experiments.figures import Drawn, save_scene, scene, small


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    return Drawn(monkeypatch, heat)


def test_a_panel_is_the_reduction_of_the_networks_tensor(tmp_path, drawn):
    predictor, (image, truth) = small(tmp_path / "net.safetensors"), scene(size=51)
    heat_figure(predictor, image, truth)
    b3 = predictor.features(image)["B3"][0].double().numpy()
    grid = torch.from_numpy(np.sqrt((b3**2).sum(0) / len(b3)))[None, None]
    expected = F.interpolate(grid, (51, 51), mode="bilinear", align_corners=False)[0, 0].numpy()
    (_, panel, _), (p2, *_), shown = drawn.rows
    np.testing.assert_allclose(panel.picture, expected, rtol=1e-12)
    assert panel.note.endswith(f" ({len(b3)} channels, 7 x 7 points)")
    assert p2.title == "P2: SeEM, what it adds"
    assert "(32 channels" in p2.note  # four branches of width 8
    assert drawn.titles()[2] == ["picture", "ground truth", "segmentation"]
    assert shown[2].note.startswith("mIoU ")
    heat_figure(predictor, image, whole=True)
    assert drawn.titles()[1][0] == "P2: SeEM, with its input"
    assert f"({predictor.features(image)['P2'].shape[1]} channels" in drawn.rows[1][0].note


def test_what_seem_adds_are_its_branches(tmp_path):
    predictor, (image, _) = small(tmp_path / "net.safetensors"), scene()
    features = predictor.features(image)
    with torch.no_grad():
        for name, inputs in (("P2", ["B2"]), ("P3", ["P2", "B3"]), ("P4", ["P3", "B4"])):
            given = torch.cat([features[level] for level in inputs], 1)
            module = getattr(predictor.model.pyramid, name)
            branches = torch.cat([branch(given) for branch in module.branches], 1)
            torch.testing.assert_close(added(features, name), branches)
            torch.testing.assert_close(features[name], torch.cat([given, branches], 1))


@pytest.mark.parametrize("variant", [*VARIANTS, "torchvision-fcn", "smp-fpn"])
def test_each_network_gives_the_panels_that_it_has(tmp_path, drawn, variant):
    if variant.startswith("smp-"):
        pytest.importorskip("segmentation_models_pytorch")
    heat_figure(small(tmp_path / "net.safetensors", variant), scene(size=43)[0])
    before, *after, last = drawn.titles()
    assert drawn.sides == ["backbone", *["enhanced"] * len(after), ""]
    assert before == ["B1", "B2", "B3", "B4"][variant not in PEERS :]
    assert last == ["picture", "segmentation"]
    words = {"seem": "SeEM, what it adds", "fs": "SeEM-FS, what it adds", "conv": "3x3 convolution"}
    kinds = VARIANTS[variant].levels if variant in VARIANTS else (None,)
    titles = [f"P{n}: {words[kind]}" if kind else "" for n, kind in enumerate(kinds, start=2)]
    assert after == ([titles] if any(kinds) else [])
    maps = [panel for row in drawn.rows[:-1] for panel in row if panel]
    assert {panel.picture.shape for panel in maps} == {(43, 43)}


def test_a_probe_has_no_stage_above_it(tmp_path, drawn):
    heat_figure(small(tmp_path / "net.safetensors", probe="B3+EB2"), scene()[0])
    assert drawn.titles()[:2] == [["B2", "B3"], ["P2: SeEM, what it adds", "", ""]]


def test_maps_of_a_padded_network_are_cut_as_its_scores(tmp_path, drawn):
    """ConvNeXt pads 40 to 64."""
    predictor = small(tmp_path / "net.safetensors", "baseline", backbone="convnext_atto")
    image = scene(size=48)[0][:40, :40]
    heat_figure(predictor, image)
    b4 = heat_map(predictor.features(image)["B4"])
    assert b4.shape[-2:] == (8, 8)
    expected = F.interpolate(b4, (64, 64), mode="bilinear", align_corners=False)[0, 0, :40, :40]
    np.testing.assert_allclose(drawn.rows[0][2].picture, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "label", "message"),
    [
        ((30, 64), 0, r"mask\.png: 30 x 64 pixels, but its picture .* has 64 x 64"),
        ((64, 64), 77, r"mask\.png: label ids 77 \(4096 pixels\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, shape, label, message):
    picture, mask = save_scene(tmp_path / "a.png"), tmp_path / "mask.png"
    Image.fromarray(np.full(shape, label, np.uint8)).save(mask)
    predictor = Predictor(FirstChannel(SHAPES.num_classes), SHAPES, device="cpu")
    with pytest.raises(DataError, match=message):
        read_truth(mask, picture, predictor)
