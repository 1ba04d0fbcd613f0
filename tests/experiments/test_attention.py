import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.evaluation.metrics.boundaries import transition_distance
from seenet.experiments import attention
from seenet.experiments.attention import Attention, attention_figure, compare, painted, write_attention
from tests.experiments.figures import save_scene, save_small, scene, small


def test_near_and_elsewhere_by_a_slow_loop():
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 26), np.uint8)
    mask[5:12, 7:15] = 1
    mask[15:, 20:] = 2
    values = rng.random(mask.shape)
    edges = [
        (y, x)
        for y in range(20)
        for x in range(26)
        if any(
            0 <= y + dy < 20 and 0 <= x + dx < 26 and mask[y, x] != mask[y + dy, x + dx] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]
    near, elsewhere = [], []
    for y in range(20):
        for x in range(26):
            distance = 1 + min(max(abs(y - ey), abs(x - ex)) for ey, ex in edges)
            (near if distance <= 3 else elsewhere).append(values[y, x])
    found = compare(values, transition_distance(mask, 255)).result()
    assert found["near_pixels"] == len(near)
    assert found["elsewhere_pixels"] == len(elsewhere)
    assert found["near"] == pytest.approx(np.mean(near), rel=1e-12)
    assert found["elsewhere"] == pytest.approx(np.mean(elsewhere), rel=1e-12)
    assert found["difference"] == pytest.approx(np.mean(near) - np.mean(elsewhere), rel=1e-9)


def test_pictures_are_pooled_by_pixels():
    both = Attention(10.0, 20, 30.0, 100) + Attention(1.0, 1, 0.0, 0)
    assert both.result()["near"] == pytest.approx(11 / 21)
    assert both.result()["elsewhere"] == pytest.approx(0.3)


def test_words_for_higher_lower_and_nothing():
    assert Attention(8.0, 10, 4.0, 10).line() == (
        "0.800 within 3 pixels of predicted boundaries, 0.400 elsewhere: 0.400 higher at boundaries"
    )
    assert Attention(2.0, 10, 4.0, 10).line().endswith("0.200 lower at boundaries")
    flat = compare(np.ones((4, 4)), None)
    assert flat.result() == {"near": None, "elsewhere": 1.0, "difference": None, "near_pixels": 0, "elsewhere_pixels": 16}
    assert flat.line() == "no pixel within 3 of a predicted boundary, nothing to compare"
    assert compare(np.ones((2, 2)), np.ones((2, 2), int)).line() == "no pixel elsewhere, nothing to compare"


def test_outlines_are_painted_white():
    picture = painted(np.zeros((2, 2, 3), np.uint8), np.array([[True, False], [False, False]]))
    assert picture.sum() == 3 * 255
    assert picture[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("stride", [4, 8])
def test_the_map_is_the_equation(tmp_path, monkeypatch, stride):
    """Mean over channels of 1 - sigmoid(1x1(P_out)), where P_out and B1 meet (Eq. 3), then one resize."""
    predictor, (image, _) = small(tmp_path / "net.safetensors", refine_stride=stride), scene(size=50)
    rows = []
    monkeypatch.setattr(attention, "panel_grid", lambda given, caption, legend: rows.extend(given) or caption.encode())
    caption, found = attention_figure(predictor, image)
    features = predictor.features(image)
    with torch.no_grad():
        grid = features["B1" if stride == 4 else "B2"].shape[-2:]
        p = F.interpolate(features["P_out"], grid, mode="bilinear", align_corners=False)
        a = 1 - torch.sigmoid(predictor.model.refine.project(p))
    expected = F.interpolate(a.double(), (50, 50), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(rows[0][2].picture, expected.mean(0).numpy(), rtol=1e-5)
    variances = a[0].double().flatten(1).var(1)
    channels = [int(panel.title.split()[1]) for panel in rows[1]]
    assert variances[channels].tolist() == sorted(variances.tolist(), reverse=True)[:4]
    for channel, panel in zip(channels, rows[1], strict=True):
        np.testing.assert_allclose(panel.picture, expected[channel].numpy(), rtol=1e-5)
    assert found.line() in caption.decode()


def test_figures_and_numbers(tmp_path):
    model = save_small(tmp_path / "net.safetensors")
    pictures = [save_scene(tmp_path / f"{index}.png", index) for index in range(2)]
    report = write_attention(str(model), [str(path) for path in pictures], tmp_path / "out", device="cpu")
    for path in pictures:
        with Image.open(io.BytesIO((tmp_path / "out" / path.name).read_bytes())) as image:
            assert image.format == "PNG"
    result = report.result()
    assert [entry["image"] for entry in result["images"]] == [str(path) for path in pictures]
    pixels = [entry["near_pixels"] + entry["elsewhere_pixels"] for entry in result["images"]]
    assert pixels == [64 * 64] * 2
    assert result["all"]["near_pixels"] + result["all"]["elsewhere_pixels"] == 2 * 64 * 64
    assert len(report.lines()) == 3


@pytest.mark.parametrize("variant", ["pfp-mixed-bf", "torchvision-fcn"])
def test_only_seenet_has_attention(tmp_path, variant):
    model = save_small(tmp_path / "net.safetensors", variant)
    with pytest.raises(UsageError, match=f"variant {variant} has no boundary attention; the variant that has: seenet"):
        write_attention(str(model), [str(save_scene(tmp_path / "a.png"))], tmp_path / "out")
    assert not (tmp_path / "out").exists()
