import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from seenet.core.errors import DataError, PartialError, UsageError
from seenet.data.shapes import SHAPES
from seenet.experiments import heat
from seenet.experiments.drawing import Panel
from seenet.experiments.heat import added, heat_figure, heat_map, read_truth, write_heat_maps
from seenet.model import PEERS, VARIANTS
from tests.experiments.figures import save_scene, save_small, scene, small

NAMES = ("P2", "P3", "P4")


def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[Panel | None]]:
    """What the next figure is made of."""
    rows: list[list[Panel | None]] = []

    def grid(given, caption, legend):
        rows.extend(given)
        return b""

    monkeypatch.setattr(heat, "panel_grid", grid)
    return rows


def test_the_map_is_the_root_mean_square_over_channels():
    tensor = torch.tensor([[[[3.0, 0.0]], [[-4.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])  # 1 x 4 x 1 x 2
    assert heat_map(tensor).tolist() == [[[[2.5, 0.5]]]]  # 5 / 2, 1 / 2
    assert heat_map(tensor.repeat(1, 3, 1, 1)).tolist() == [[[[2.5, 0.5]]]]  # width does not count


def test_a_panel_is_the_stated_reduction_of_the_networks_tensor(tmp_path, monkeypatch):
    predictor, (image, truth) = small(tmp_path / "net.safetensors"), scene(size=51)
    rows = shown(monkeypatch)
    heat_figure(predictor, image, truth)
    features = predictor.features(image)
    # Slow and by hand: every channel of B3 squared, the mean's root, then one resize.
    b3 = features["B3"][0].double().numpy()
    total = np.zeros(b3.shape[1:])
    for channel in b3:
        total += channel**2
    expected = F.interpolate(torch.from_numpy(np.sqrt(total / len(b3)))[None, None], (51, 51), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(rows[0][1].picture, expected.numpy(), rtol=1e-12)
    assert rows[0][1].title == "B3"
    assert rows[0][1].note == f"{expected.min():.3g} to {expected.max():.3g} ({len(b3)} channels, 7 x 7 points)"
    assert rows[1][0].title == "P2: SeEM, what it adds"
    assert "(32 channels" in rows[1][0].note  # four branches of width 8
    assert [panel.title for panel in rows[2]] == ["picture", "ground truth", "segmentation"]
    assert rows[2][2].note.startswith("mIoU ")


def test_what_seem_adds_are_its_branches(tmp_path):
    predictor, (image, _) = small(tmp_path / "net.safetensors"), scene()
    features = predictor.features(image)
    pyramid = predictor.model.pyramid
    with torch.no_grad():
        p3_input = torch.cat([features["P2"], features["B3"]], 1)
        for name, given in (("P2", features["B2"]), ("P3", p3_input), ("P4", torch.cat([features["P3"], features["B4"]], 1))):
            branches = torch.cat([branch(given) for branch in getattr(pyramid, name).branches], 1)
            torch.testing.assert_close(added(features, name, "seenet"), branches)
            torch.testing.assert_close(features[name], torch.cat([given, branches], 1))


@pytest.mark.parametrize("variant", [*VARIANTS, "torchvision-fcn", "smp-fpn"])
def test_each_network_gives_the_panels_that_it_has(tmp_path, monkeypatch, variant):
    if variant.startswith("smp-"):
        pytest.importorskip("segmentation_models_pytorch")
    predictor, (image, _) = small(tmp_path / "net.safetensors", variant), scene(size=43)
    rows = shown(monkeypatch)
    heat_figure(predictor, image)
    before, *after, last = rows
    assert [panel.title for panel in before] == ["B1", "B2", "B3", "B4"][variant not in PEERS :]
    assert [panel.title for panel in last] == ["picture", "segmentation"]
    there = [name for name in NAMES if name in predictor.features(image)]
    titles = [panel.title if panel else None for panel in after[0]] if after else []
    assert [title.partition(":")[0] for title in titles if title] == there
    words = {"seem": "SeEM, what it adds", "fs": "SeEM-FS, what it adds", "conv": "3x3 convolution"}
    levels = VARIANTS[variant].levels if variant in VARIANTS else ()
    assert [title.partition(": ")[2] for title in titles if title] == [words[kind] for kind in levels if kind]
    assert all(panel.picture.shape == (43, 43) for row in (before, *after) for panel in row if panel)


def test_a_padded_networks_maps_lie_where_the_picture_does(tmp_path, monkeypatch):
    """ConvNeXt pads 40 to 64: the map is cut as the scores are."""
    predictor = small(tmp_path / "net.safetensors", "baseline", backbone="convnext_atto")
    assert predictor.model.pad_multiple == 32
    rows = shown(monkeypatch)
    heat_figure(predictor, scene(size=48)[0][:40, :40])
    b4 = heat_map(predictor.features(scene(size=48)[0][:40, :40])["B4"])
    assert b4.shape[-2:] == (8, 8)
    expected = F.interpolate(b4, (64, 64), mode="bilinear", align_corners=False)[0, 0, :40, :40]
    np.testing.assert_allclose(rows[0][2].picture, expected.numpy(), rtol=1e-12)


def test_with_the_input_on_demand(tmp_path, monkeypatch):
    predictor, (image, _) = small(tmp_path / "net.safetensors"), scene()
    rows = shown(monkeypatch)
    heat_figure(predictor, image, whole=True)
    features = predictor.features(image)
    assert rows[1][0].title == "P2: SeEM, with its input"
    assert f"({features['P2'].shape[1]} channels" in rows[1][0].note


def test_a_picture_of_one_pixel(tmp_path):
    data = heat_figure(small(tmp_path / "net.safetensors"), np.zeros((1, 1, 3), np.uint8))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"


def test_one_bad_picture_leaves_the_others_done(tmp_path):
    model = save_small(tmp_path / "net.safetensors", "baseline")
    good, bad = save_scene(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(b"nonsense")
    report = write_heat_maps(str(model), [str(good), str(bad)], tmp_path / "heat", device="cpu")
    assert (report.written, len(report.failed)) == (1, 1)
    assert [path.name for path in (tmp_path / "heat").iterdir()] == ["good.png"]
    with pytest.raises(PartialError, match=r"1 of 2 pictures failed, the rest is done: .*bad\.png: not a picture"):
        report.check()


def test_masks_that_do_not_fit(tmp_path):
    picture, mask = save_scene(tmp_path / "a.png"), tmp_path / "mask.png"
    Image.fromarray(scene()[1]).save(mask)
    assert np.array_equal(read_truth(mask, picture, SHAPES), scene()[1])
    Image.fromarray(scene()[1][:30]).save(mask)
    with pytest.raises(DataError, match=r"mask\.png: 30 x 64 pixels, but its picture .* has 64 x 64"):
        read_truth(mask, picture, SHAPES)
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"mask\.png: label ids 77 \(4096 pixels\)"):
        read_truth(mask, picture, SHAPES)
    with pytest.raises(UsageError, match="found 2 pictures"):
        write_heat_maps(str(save_small(tmp_path / "n.safetensors")), [str(picture), str(mask)], tmp_path / "heat", mask=mask, device="cpu")
