"""Every part of Table 1's rows, every peer and kind of backbone exports, and every format answers alike: real exports, so slow ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seenet
from seenet.core.files import sha256
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.export.run import run_export
from seenet.export.torch import open_written
from seenet.model import PEERS, create_model
from seenet.model.files import save_model
from seenet.prediction.bundles.bundle import BundlePredictor
from seenet.prediction.bundles.formats import BUNDLE_FORMATS
from seenet.prediction.loading import load
from tests.prediction.bundles.test_bundle import picture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(20):
        Image.fromarray(ShapesSplit("val", 50, 72).image(index)).save(folder / f"{index}.png")
    return folder


def save(path: Path, **options: object) -> Path:
    torch.manual_seed(0)
    network = create_model(num_classes=6, p_out=16, width=8, **options).eval()  # type: ignore[arg-type]
    # Fresh norms do nothing that a wrong fold would show.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    save_model(path, network, SHAPES)
    return path


ROWS = ("baseline", "pfp", "seem-fs", "pfp-mixed-bf", "seenet")
CASES = [
    # pfp-seem, pfp-seem-fs and pfp-mixed are made of the same parts.
    *(("onnx", {"variant": row, "backbone": "resnet10t", "output_stride": 8}) for row in ROWS),
    *(
        (
            "onnx",
            {"variant": peer, "backbone": "resnet10t", "output_stride": one.output_strides[-1]},
        )
        for peer, one in PEERS.items()
    ),
    *(
        (kind, {"backbone": backbone, "output_stride": 16})
        for kind in ("onnx", "openvino", "torch")
        for backbone in ("resnet10t", "tf_efficientnet_lite0", "convnext_atto")
    ),
    (
        "onnx",
        {
            "backbone": "resnet10t",
            "output_stride": 32,
            "refine_stride": 8,
            "local_conv": "depthwise",
        },
    ),
]


def named(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=named)
def test_it_exports_and_answers_alike(
    kind: str, options: dict[str, object], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"net{BUNDLE_FORMATS[kind].suffix}"
    report = run_export(save(tmp_path / "net.safetensors", **options), out, kind, images=[pictures])
    assert report.verification.failures() == []
    assert report.verification.difference < 1e-4
    one = load(tmp_path / "net.safetensors", "cpu")
    other = BundlePredictor(open_written(out)) if kind == "torch" else load(out)
    for sides in ((1, 2), (67, 41)):
        image = picture(*sides)
        np.testing.assert_allclose(other.scores(image), one.scores(image).numpy(), atol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_the_same_bytes_again(kind: str, pictures: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "net.safetensors", backbone="resnet10t", output_stride=16)
    one, other = (
        run_export(
            model, tmp_path / name / f"net{BUNDLE_FORMATS[kind].suffix}", kind, images=[pictures]
        )
        for name in ("one", "other")
    )
    assert [path.name for path in one.files] == [path.name for path in other.files]
    assert [sha256(path) for path in one.files] == [sha256(path) for path in other.files]
    # Nor does a file say where on the machine it was made.
    assert not any(
        str(Path(seenet.__file__).parent).encode() in path.read_bytes() for path in one.files
    )


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_eight_bits(kind: str, pictures: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "net.safetensors", backbone="resnet10t", output_stride=16)
    whole, small = (
        tmp_path / f"{name}{BUNDLE_FORMATS[kind].suffix}" for name in ("whole", "small")
    )
    run_export(model, whole, kind, images=[pictures])
    run_export(model, small, kind, images=[pictures], int8=True)
    size = {
        path: sum(
            part.stat().st_size for part in (path, path.with_suffix(".bin")) if part.is_file()
        )
        for path in (whole, small)
    }
    assert size[small] < 0.5 * size[whole]
    assert load(small).settings["precision"] == "int8"


def test_half_the_weights(pictures: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "net.safetensors", backbone="resnet10t", output_stride=16)
    report = run_export(model, tmp_path / "half.xml", "openvino", images=[pictures], half=True)
    assert (tmp_path / "half.bin").stat().st_size < 0.6 * model.stat().st_size
    assert report.card.precision == "fp16"
