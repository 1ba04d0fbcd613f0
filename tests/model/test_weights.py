"""What is loaded, what is not, and that both are said."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from seenet.core.errors import DataError
from seenet.data.camvid import CAMVID11
from seenet.model import create_model
from seenet.model.files import fit_weights, save_model

SMALL = {"backbone": "resnet10t", "num_classes": 11, "width": 8, "p_out": 16}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's file as timm would give it, with its fully connected layer."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
    return path


def test_classifier_file_fills_the_backbone(imagenet: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="seenet")
    model = create_model(**SMALL, weights=str(imagenet)).eval()
    reference = create_reference(imagenet)
    images = torch.randn(1, 3, 64, 64)
    for found, expected in zip(model.backbone(images), reference(images), strict=True):
        torch.testing.assert_close(found, expected)
    assert "tensors loaded, 2 in the file not used" in caplog.text


def create_reference(path: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    body = timm.create_model("resnet10t", features_only=True, output_stride=8, out_indices=(1, 2, 3, 4))
    body.load_state_dict({k: v for k, v in load_file(path).items() if not k.startswith("fc")})
    return body.eval()


def test_classifier_file_of_a_network_that_stands_deeper(tmp_path: Path) -> None:
    """Of some families timm wraps the whole network, whose names then begin with `model`."""
    options = {**SMALL, "backbone": "cspnext_s", "output_stride": 32}
    reference = timm.create_model("cspnext_s", num_classes=7)
    save_file(reference.state_dict(), tmp_path / "cspnext.safetensors")
    model = create_model(**options, weights=str(tmp_path / "cspnext.safetensors"))
    held = model.backbone.body.state_dict()
    assert all(torch.equal(held[f"model.{key}"], value) for key, value in reference.state_dict().items() if f"model.{key}" in held)
    # And of a SeENet model, where they stand as in the file.
    save_model(tmp_path / "model.safetensors", model, CAMVID11)
    again = create_model(**options, weights=str(tmp_path / "model.safetensors")).backbone.body.state_dict()
    assert all(torch.equal(again[key], value) for key, value in held.items())


def test_random_start_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="seenet")
    create_model(**SMALL)
    assert "random weights" in caplog.text


def test_other_input_channels_are_adapted(imagenet: Path) -> None:
    grey = create_model(**SMALL, in_channels=1, weights=str(imagenet)).eval()
    rgb = create_model(**SMALL, weights=str(imagenet)).eval()
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(grey.backbone(image)[0], rgb.backbone(image.expand(1, 3, 32, 32))[0], rtol=1e-4, atol=1e-5)


def test_foreign_and_missing_files(tmp_path: Path, imagenet: Path) -> None:
    with pytest.raises(DataError, match="no such weights file"):
        create_model(**SMALL, weights=str(tmp_path / "none.safetensors"))
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(DataError, match="only 0 of"):
        create_model(**SMALL, weights=str(other))
    with pytest.raises(DataError, match="seenet import"):
        create_model(**SMALL, weights="weights.pth")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(imagenet.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a readable"):
        create_model(**SMALL, weights=str(damaged))


def test_v1_metadata_moves_the_stride(tmp_path: Path) -> None:
    path = tmp_path / "v1.safetensors"
    metadata = {"architecture": "resnet50 v1", "mean": "0.1,0.2,0.3", "std": "1,2,3"}
    save_file(timm.create_model("resnet50").state_dict(), path, metadata=metadata)
    model = create_model(backbone="resnet50", weights=str(path))
    assert model.options["stride_on"] == "conv1"
    assert model.normalization.mean == (0.1, 0.2, 0.3)
    assert model.backbone.body.get_submodule("layer2.0.conv1").stride == (2, 2)


def test_backbone_of_a_seenet_model(tmp_path: Path) -> None:
    model = create_model(**SMALL)
    save_model(tmp_path / "model.safetensors", model, CAMVID11)
    (tmp_path / "v1.2").mkdir()  # a run's folder is no file, whatever dots it has
    save_model(tmp_path / "v1.2" / "model.safetensors", model, CAMVID11)
    for weights in ("model.safetensors", "v1.2"):
        other = create_model("baseline", backbone="resnet10t", num_classes=3, weights=str(tmp_path / weights))
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(other.backbone.state_dict()[key], value), key


def test_another_class_count_lists_what_was_skipped() -> None:
    source, target = create_model(**SMALL), create_model(**{**SMALL, "num_classes": 4})
    report = fit_weights(target, source.state_dict())
    assert report.loaded == len(target.state_dict()) - 2
    assert sorted(line.split(":")[0] for line in report.skipped) == [
        "refine.classifier.1.bias",
        "refine.classifier.1.weight",
    ]
    assert "file has (11," in report.skipped[0] and "model has (4," in report.skipped[0]
