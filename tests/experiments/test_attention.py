import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.data.shapes import SHAPES
from seenet.evaluation.metrics.boundaries import transition_distance
from seenet.experiments import attention
from seenet.experiments.attention import Attention, attention_figure, compare, write_attention
from tests.experiments.figures import Drawn, save_scene, save_small, scene, small


def test_means_near_and_elsewhere():
    values, distance = np.array([[0.5, 0.75, 0.25, 0.125]]), np.array([[1, 3, 4, 9]])
    assert compare(values, distance).result() == {
        "near": 0.625,
        "elsewhere": 0.1875,
        "difference": 0.4375,
        "near_pixels": 2,
        "elsewhere_pixels": 2,
    }


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Attention(8.0, 10, 4.0, 10), "0.400 higher at boundaries"),
        (Attention(2.0, 10, 4.0, 10), "0.200 lower at boundaries"),
        (compare(np.ones((4, 4)), None), "no pixel within 3 of a predicted boundary"),
        (compare(np.ones((2, 2)), np.ones((2, 2), int)), "no pixel elsewhere"),
    ],
)
def test_numbers_as_text(found, text):
    assert text in found.line()
    assert (found.result()["difference"] is None) == ("no pixel" in text)


@pytest.mark.parametrize("stride", [4, 8])
def test_the_map_is_the_equation(tmp_path, monkeypatch, stride):
    """Mean over channels of 1 - sigmoid(1x1(P_out)), where P_out and B1 meet, then one resize."""
    predictor = small(tmp_path / "net.safetensors", refine_stride=stride)
    image, drawn = scene(size=50)[0], Drawn(monkeypatch, attention)
    _, found = attention_figure(predictor, image)
    features = predictor.features(image)
    with torch.no_grad():
        grid = features["B1" if stride == 4 else "B2"].shape[-2:]
        p = F.interpolate(features["P_out"], grid, mode="bilinear", align_corners=False)
        a = 1 - torch.sigmoid(predictor.model.refine.project(p))
    expected = F.interpolate(a.double(), (50, 50), mode="bilinear", align_corners=False)[0].numpy()
    top, below = drawn.rows
    np.testing.assert_allclose(top[2].picture, expected.mean(0), rtol=1e-5)
    outlines = transition_distance(features["logits"][0].argmax(0).numpy(), SHAPES.ignore) == 1
    assert np.array_equal((top[3].picture == 255).all(2), outlines)
    variances = a[0].double().flatten(1).var(1)
    channels = [int(panel.title.split()[1]) for panel in below]
    assert variances[channels].tolist() == sorted(variances.tolist(), reverse=True)[:4]
    for channel, panel in zip(channels, below, strict=True):
        np.testing.assert_allclose(panel.picture, expected[channel], rtol=1e-5)
    assert found.line() in drawn.caption


def test_numbers_are_pooled_over_the_pixels_of_all_pictures(tmp_path):
    model = save_small(tmp_path / "net.safetensors")
    pictures = [str(save_scene(tmp_path / f"{index}.png", index)) for index in range(2)]
    report = write_attention(str(model), pictures, tmp_path / "out", device="cpu")
    result, pooled = report.result(), report.all
    assert [entry["image"] for entry in result["images"]] == pictures
    assert pooled.near_sum == sum(found.near_sum for found in report.found.values())
    assert pooled.near_pixels + pooled.elsewhere_pixels == 2 * 64 * 64
    assert result["all"] == pooled.result() and len(report.lines()) == 3


@pytest.mark.parametrize("variant", ["pfp-mixed-bf", "torchvision-fcn"])
def test_only_seenet_has_attention(tmp_path, variant):
    model = str(save_small(tmp_path / "net.safetensors", variant))
    with pytest.raises(UsageError, match=f"variant {variant} has no .* that has: seenet"):
        write_attention(model, [str(save_scene(tmp_path / "a.png"))], tmp_path / "out")
    assert not (tmp_path / "out").exists()
