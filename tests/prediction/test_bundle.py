"""An exported bundle is a model like any other, without torch in the process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.cli import main
from seenet.core import progress
from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.data.shapes import SHAPES
from seenet.prediction.bundle import BundlePredictor, parse_card
from seenet.prediction.loading import load, load_trained
from seenet.prediction.scores import to_probabilities
from tests.prediction.bundles import CENTRES, card, write_red

TINY = np.finfo(np.float32).tiny

WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
import seenet
net = seenet.load("red.onnx")
result = net("red.png")
result.save("out", probabilities=True)
np.save("mask.npy", result.mask)
from seenet.cli import main
shapes = ["data.kind=shapes", "data.size=48", "data.count=50"]
for line in (["predict", "red.onnx", "red.png"], ["eval", "red.onnx", *shapes, "--flip", "--out", "scored"]):
    try:
        main(line)
    except SystemExit as end:
        assert not end.code, line
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.mark.parametrize("flip", [False, True])
def test_tiles_of_a_bundle(red: Path, flip: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    image = picture(300, 333)
    whole, tiles = load(red, flip=flip), load(red, flip=flip, tile=160, margin=32)
    assert isinstance(tiles, BundlePredictor)
    seen = []
    run = tiles.run

    def watched(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(images.shape[1:3])
        return run(images)

    tiles.run = watched
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with tiles.tile_bar((300, 333), "large.png"):
        assert np.array_equal(tiles.scores(image), whole.scores(image))
    assert len(seen) == tiles.tiles((300, 333)) > 4
    assert f"tiles of large.png: {len(seen)}/{len(seen)}" in capsys.readouterr().err
    assert whole.tiles((300, 333)) == 1
    assert max(max(shape) for shape in seen) <= 160
    assert np.array_equal(tiles.mask(image), whole.mask(image))
    assert tiles.settings["tile"] == 160
    assert "tile" not in whole.settings
    # A row of tiles keeps none of their margins.
    assert all(stripe.base is None or stripe.base.shape == stripe.shape for stripe in tiles.stripes(image))
    # Very little memory, and each row of tiles is one stripe.
    assert len(list(load(red, tile="auto", margin=32, memory=1e-6).stripes(image))) == 4


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return write_red(tmp_path / "red.onnx")


def picture(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected_scores(image: np.ndarray) -> np.ndarray:
    return -np.abs(image[None, :, :, 0].astype(np.float32) - np.array(CENTRES, np.float32)[:, None, None])


def test_load_predict_and_eval_import_no_torch(red: Path, tmp_path: Path) -> None:
    image = picture(48, 40)
    Image.fromarray(image).save(tmp_path / "red.png")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = expected_scores(image).argmax(0)
    assert np.array_equal(np.load(tmp_path / "mask.npy"), expected)
    with Image.open(tmp_path / "predictions" / "masks" / "red.png") as mask:
        assert np.array_equal(np.array(mask), expected)
    with np.load(tmp_path / "out" / "probabilities" / "red.npz") as stored:
        np.testing.assert_allclose(stored["probabilities"], to_probabilities(expected_scores(image)), atol=1e-3)
    result = json.loads((tmp_path / "scored" / "result.json").read_text())
    assert result["images"] == 50
    assert result["flip"] is True
    assert result["runtime"].startswith("onnxruntime ")
    assert result["loss"] > 0


def test_scores_and_flip(red: Path) -> None:
    net = load(red)
    assert isinstance(net, BundlePredictor)
    assert net.labels == SHAPES
    image = picture()
    assert np.array_equal(net.scores(image), expected_scores(image))
    # Reversed and read-only views are pictures too.
    assert np.array_equal(net.mask(image[:, ::-1]), expected_scores(image[:, ::-1]).argmax(0))
    # The network is blind to place: mirrored there and back it says the same.
    flipped = load(red, flip=True)
    np.testing.assert_allclose(flipped.scores(image), np.log(np.maximum(to_probabilities(expected_scores(image)), TINY)), rtol=1e-6)
    assert flipped.settings["flip"] is True


def test_the_bundles_own_class_map_is_taken_and_nan_is_told(red: Path) -> None:
    net, image = load(red), picture()
    assert isinstance(net, BundlePredictor)
    scores, masks = net.run(image[None])
    assert np.array_equal(net.mask(image), expected_scores(image).argmax(0))
    net.run = lambda images: (scores, masks + 1)
    assert np.array_equal(net.mask(image), masks[0] + 1)
    scores[0, 2, 0, 0] = np.nan
    with pytest.raises(NotFiniteError):
        net.mask(image)


def test_what_a_bundle_cannot_do_is_said(red: Path) -> None:
    for options, message in (
        ({"scales": (0.5, 1.0)}, "scale 1 alone"),
        ({"device": "cuda"}, "auto or cpu"),
        ({"precision": "bf16"}, "runs in fp32"),
        ({"factory": "a:b"}, "leave --factory a:b out"),
    ):
        with pytest.raises(UsageError, match=message):
            load(red, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="shows nothing but its scores"):
        load_trained(red)
    net = load(red)
    with pytest.raises(UsageError, match="6x9, not at 3x3"):
        net.scores(picture(), (3, 3))
    with pytest.raises(DataError, match="float64"):
        net.scores(picture() / 255)


def test_a_missing_runtime_names_the_extra(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[export\]'"):
        load(red)


def test_the_card_comes_back_and_bad_ones_are_told() -> None:
    path, one = Path("x.onnx"), card()
    assert parse_card(path, one.text()) == one
    values = json.loads(one.text())
    for text, message in (
        (None, "holds no SeENet metadata"),
        ("{", "metadata is damaged"),
        ("[]", "metadata is damaged"),
        (json.dumps({**values, "format": 2}), "install a newer seenet"),
        (json.dumps({**values, "labels": {}}), "metadata is damaged"),
        (json.dumps({**values, "labels": {**values["labels"], "colours": [[0, 0, 0]]}}), "metadata is damaged"),
        (json.dumps({**values, "labels": {**values["labels"], "colours": [[0, 0, 256]] * 6}}), "not of 0 to 255"),
    ):
        with pytest.raises(DataError, match=message):
            parse_card(path, text)


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_red(tmp_path / "red.onnx", text="")
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(tmp_path / "red.onnx"), str(tmp_path), "--out", str(tmp_path / "out")])
    assert caught.value.code == 4
    assert "holds no SeENet metadata" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
