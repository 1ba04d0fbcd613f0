"""What is loaded, what is not, and that both are said."""

import json
import logging
import pickle
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from seenet.core.errors import DataError
from seenet.core.labels import CAMVID11, VOC21
from seenet.model import create_model
from seenet.model.files import fit_weights, import_pickle, load_model, read_options, save_model

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


def test_model_file_round_trip(tmp_path: Path) -> None:
    model = create_model("seenet", **SMALL, output_stride=16, auxiliary=True).eval()
    save_model(tmp_path / "model.safetensors", model, CAMVID11, notes={"step": 3})
    saved = load_model(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 40, 40)
    assert torch.equal(saved.model(images), model(images))
    assert (saved.labels, saved.notes, saved.model.options) == (CAMVID11, {"step": 3}, model.options)
    assert load_model(tmp_path).sha256 == saved.sha256
    assert read_options(tmp_path / "model.safetensors") == model.options
    assert saved.model.normalization == model.normalization


def test_half_keeps_vectors_exact(tmp_path: Path) -> None:
    model = create_model(**SMALL).eval()
    for norm in model.backbone.norms():
        norm.running_var.fill_(1e-9)  # type: ignore[operator,union-attr]
    save_model(tmp_path / "half.safetensors", model, CAMVID11, half=True)
    state = load_model(tmp_path / "half.safetensors").model.state_dict()
    for key, value in model.state_dict().items():
        expected = value.half().float() if value.dim() > 1 else value
        assert torch.equal(state[key], expected), key


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


@pytest.mark.parametrize("damage", ["format", "options", "json"])
def test_damaged_model_files(tmp_path: Path, damage: str) -> None:
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    save_model(path, create_model(**SMALL), VOC21)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = json.loads(file.metadata()["seenet"])
    if damage == "format":
        card["format"] = 99
    if damage == "options":
        card["options"]["variant"] = "unheard"
    text = json.dumps(card)[: -5 if damage == "json" else None]
    save_file(tensors, path, metadata={"seenet": text})
    with pytest.raises(DataError, match="newer seenet" if damage == "format" else "damaged or foreign"):
        load_model(path)


def test_unknown_model_name() -> None:
    with pytest.raises(DataError, match="no such run, model file or bundled model"):
        load_model("camvid-lite9")


class TestImport:
    def test_state_dict_with_ddp_names(self, tmp_path: Path) -> None:
        state = {"module.conv.weight": torch.randn(2, 3), "module.conv.bias": torch.randn(2)}
        torch.save({"state_dict": state}, tmp_path / "a.pth")
        assert import_pickle(tmp_path / "a.pth", tmp_path / "a.safetensors") == 2
        from safetensors.torch import load_file

        assert torch.equal(load_file(tmp_path / "a.safetensors")["conv.weight"], state["module.conv.weight"])

    def test_code_is_never_run(self, tmp_path: Path) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[object, ...]:
                return (Path.touch, (tmp_path / "owned",))

        (tmp_path / "bad.pth").write_bytes(pickle.dumps({"w": Hostile()}))
        with pytest.raises(DataError, match=r"bad\.pth"):
            import_pickle(tmp_path / "bad.pth", tmp_path / "bad.safetensors")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]

    def test_what_unpacks_to_more_than_the_file_is_refused(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {"w": torch.zeros(1).expand(100_000_000)}}, tmp_path / "wide.pth")
        with pytest.raises(DataError, match=r"wide\.pth: tensors of 400000000 bytes in a file of \d{4};"):
            import_pickle(tmp_path / "wide.pth", tmp_path / "wide.safetensors")
        torch.save({"w": torch.zeros(1000)}, tmp_path / "plain.pth")
        with (
            zipfile.ZipFile(tmp_path / "plain.pth") as plain,
            zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
        with pytest.raises(DataError, match=r"packed\.pth: a compressed archive"):
            import_pickle(tmp_path / "packed.pth", tmp_path / "packed.safetensors")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["packed.pth", "plain.pth", "wide.pth"]

    def test_never_overwrites(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(1)}, tmp_path / "a.pth")
        (tmp_path / "a.safetensors").write_text("mine")
        with pytest.raises(DataError, match="exists already"):
            import_pickle(tmp_path / "a.pth", tmp_path / "a.safetensors")
        assert (tmp_path / "a.safetensors").read_text() == "mine"
