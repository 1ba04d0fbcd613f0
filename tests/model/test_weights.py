"""Starting weights: what is loaded, what is not, and that both are logged."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from seenet.core.errors import DataError
from seenet.data.camvid import CAMVID11
from seenet.model import create_model
from seenet.model.files import fit_weights, save_model
from tests.model.networks import images, small


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's file as timm writes it, with its fully connected layer."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
    return path


def test_file_of_a_classifier(imagenet: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="seenet")
    model = small(weights=str(imagenet)).eval()
    reference = timm.create_model(
        "resnet10t", features_only=True, output_stride=8, out_indices=(1, 2, 3, 4)
    ).eval()
    state = {k: v for k, v in load_file(imagenet).items() if not k.startswith("fc")}
    reference.load_state_dict(state)
    torch.testing.assert_close(model.backbone(images(64, 64)), reference(images(64, 64)))
    assert "tensors loaded, 2 in the file not used" in caplog.text


def test_file_of_a_classifier_that_timm_wraps(tmp_path: Path) -> None:
    """`features_only` wraps some networks whole: their names then begin with `model`."""
    classifier, model_file = tmp_path / "cspnext.safetensors", tmp_path / "model.safetensors"
    state = timm.create_model("cspnext_s", num_classes=7).state_dict()
    save_file(state, classifier)
    model = small(backbone="cspnext_s", output_stride=32, weights=str(classifier))
    held = model.backbone.body.state_dict()
    assert all(torch.equal(value, state[key.removeprefix("model.")]) for key, value in held.items())
    # A SeENet model has the names of the wrapped network.
    save_model(model_file, model, CAMVID11)
    again = small(backbone="cspnext_s", output_stride=32, weights=str(model_file))
    torch.testing.assert_close(again.backbone.body.state_dict(), held, rtol=0, atol=0)


def test_other_input_channels_are_adapted(imagenet: Path) -> None:
    grey = small(in_channels=1, weights=str(imagenet)).eval()
    rgb = small(weights=str(imagenet)).eval()
    image = torch.randn(1, 1, 32, 32)
    expected = rgb.backbone(image.expand(1, 3, 32, 32))
    torch.testing.assert_close(grey.backbone(image)[0], expected[0], rtol=1e-4, atol=1e-5)


def test_foreign_missing_and_damaged_files(tmp_path: Path, imagenet: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(imagenet.read_bytes()[:1000])
    for name, message in (
        ("none.safetensors", "no such weights file"),
        ("other.safetensors", "only 0 of"),
        ("weights.pth", "seenet import"),
        ("damaged.safetensors", "not a readable"),
    ):
        with pytest.raises(DataError, match=message):
            small(weights=str(tmp_path / name))


def test_metadata_of_resnet_v1_moves_the_stride(tmp_path: Path) -> None:
    path = tmp_path / "v1.safetensors"
    metadata = {"architecture": "resnet50 v1", "mean": "0.1,0.2,0.3", "std": "1,2,3"}
    save_file(timm.create_model("resnet50").state_dict(), path, metadata=metadata)
    model = create_model(backbone="resnet50", weights=str(path))
    assert model.options["stride_on"] == "conv1"
    assert model.normalization.mean == (0.1, 0.2, 0.3)
    assert model.backbone.body.get_submodule("layer2.0.conv1").stride == (2, 2)


@pytest.mark.parametrize("weights", ["model.safetensors", "v1.2"])
def test_backbone_of_a_seenet_model(tmp_path: Path, weights: str) -> None:
    """From its file or its run; the name of a run's folder may have dots."""
    model, path = small(), tmp_path / weights
    save_model(
        path if path.suffix == ".safetensors" else path / "model.safetensors", model, CAMVID11
    )
    other = small("baseline", num_classes=3, weights=str(path))
    expected = model.backbone.state_dict()
    torch.testing.assert_close(other.backbone.state_dict(), expected, rtol=0, atol=0)


def test_another_class_count_lists_what_was_skipped() -> None:
    source, target = small(num_classes=11), small(num_classes=4)
    report = fit_weights(target, source.state_dict())
    assert report.loaded == len(target.state_dict()) - 2
    skipped = {line.split(":")[0]: line for line in report.skipped}
    assert skipped.keys() == {f"refine.classifier.1.{name}" for name in ("weight", "bias")}
    for line in skipped.values():
        assert "file has (11," in line and "model has (4," in line
