"""Real exports, which are slow: all parts of Table 1's rows, peers, backbones and formats."""

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
from tests.prediction.doubles import picture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(20):
        Image.fromarray(ShapesSplit("val", 50, 72).image(index)).save(folder / f"{index}.png")
    return folder


def save(path: Path, **options: object) -> Path:
    torch.manual_seed(0)
    network = create_model(num_classes=6, p_out=16, width=8, **options).eval()
    # A wrong fold of fresh norms would not show.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    save_model(path, network, SHAPES)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "net.safetensors", backbone="resnet10t", output_stride=16)


def bundle_path(folder: Path, kind: str) -> Path:
    return folder / f"net{BUNDLE_FORMATS[kind].suffix}"


RESNET = {"backbone": "resnet10t"}
CASES = [
    # pfp-seem, pfp-seem-fs and pfp-mixed are made of the same parts.
    *(
        ("onnx", {"variant": row, **RESNET, "output_stride": 8})
        for row in ("baseline", "pfp", "seem-fs", "pfp-mixed-bf", "seenet")
    ),
    *(
        ("onnx", {"variant": peer, **RESNET, "output_stride": one.output_strides[-1]})
        for peer, one in PEERS.items()
    ),
    *(
        (kind, {"backbone": backbone, "output_stride": 16})
        for kind in ("onnx", "openvino", "torch")
        for backbone in ("resnet10t", "tf_efficientnet_lite0", "convnext_atto")
    ),
    ("onnx", {**RESNET, "output_stride": 32, "refine_stride": 8, "local_conv": "depthwise"}),
]


def case_name(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=case_name)
def test_every_network_exports_and_answers_alike(
    kind: str, options: dict[str, object], pictures: Path, tmp_path: Path
) -> None:
    out, model = bundle_path(tmp_path, kind), save(tmp_path / "model.safetensors", **options)
    report = run_export(model, out, kind, images=[pictures])
    assert report.verification.failures() == []
    assert report.verification.difference < 1e-4
    one = load(model, "cpu")
    other = BundlePredictor(open_written(out)) if kind == "torch" else load(out)
    for sides in ((1, 2), (67, 41)):
        image = picture(*sides)
        np.testing.assert_allclose(other.scores(image), one.scores(image).numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_the_same_bytes_again(kind: str, model: Path, pictures: Path, tmp_path: Path) -> None:
    one, other = (
        run_export(model, bundle_path(tmp_path / name, kind), kind, images=[pictures]).files
        for name in ("one", "other")
    )
    assert [(path.name, sha256(path)) for path in one] == [
        (path.name, sha256(path)) for path in other
    ]
    # A file does not say where on the machine it was made.
    package = str(Path(seenet.__file__).parent).encode()
    assert not any(package in path.read_bytes() for path in one)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_eight_bits_are_smaller(kind: str, model: Path, pictures: Path, tmp_path: Path) -> None:
    whole, small = (bundle_path(tmp_path / name, kind) for name in ("whole", "small"))
    sizes = [
        sum(
            path.stat().st_size
            for path in run_export(model, out, kind, images=[pictures], int8=int8).files
            if path.suffix != ".json"
        )
        for out, int8 in ((whole, False), (small, True))
    ]
    assert sizes[1] < 0.5 * sizes[0]
    assert load(small).settings["precision"] == "int8"


def test_half_the_weights(model: Path, pictures: Path, tmp_path: Path) -> None:
    report = run_export(model, tmp_path / "half.xml", "openvino", images=[pictures], half=True)
    assert (tmp_path / "half.bin").stat().st_size < 0.6 * model.stat().st_size
    assert report.card.precision == "fp16"
