"""An exported bundle is a model like any other, without torch in the process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core import progress
from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.picture_reader import PictureReader
from seenet.data.shapes import SHAPES
from seenet.prediction.bundles.bundle import parse_card
from seenet.prediction.loading import load, load_trained
from seenet.prediction.result import to_probabilities
from tests.prediction.bundles.red import card, red_scores, write_red
from tests.prediction.doubles import picture, seenet_command

WITHOUT_TORCH = """
import sys
import numpy as np
import seenet
net = seenet.load("red.onnx")
result = net("red.png")
result.save("out", probabilities=True)
np.save("mask.npy", result.mask)
from seenet.cli import main
shapes = "data.kind=shapes data.size=48 data.count=50"
for line in ("predict red.onnx red.png", f"eval red.onnx {shapes} --flip --out scored"):
    try:
        main(line.split())
    except SystemExit as end:
        assert not end.code, line
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return write_red(tmp_path / "red.onnx")


@pytest.mark.parametrize("flip", [False, True])
def test_tiles_of_a_bundle(
    red: Path, flip: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = picture(300, 333)
    whole, tiles = load(red, flip=flip), load(red, flip=flip, tile=160, margin=32)
    seen, run = [], tiles.run
    monkeypatch.setattr(tiles, "run", lambda images: (seen.append(images.shape), run(images))[1])
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with tiles.tile_bar((300, 333), "large.png"):
        assert np.array_equal(tiles.scores(image), whole.scores(image))
    assert len(seen) == tiles.tiles((300, 333)) > 4
    assert f"tiles of large.png: {len(seen)}/{len(seen)}" in capsys.readouterr().err
    assert max(max(shape) for shape in seen) <= 160
    assert np.array_equal(tiles.mask(image), whole.mask(image))
    assert (tiles.settings["tile"], whole.tiles((300, 333))) == (160, 1)
    # A row of tiles does not keep the margins in memory.
    chunks = list(tiles.row_chunks(image))
    assert all(chunk.base is None or chunk.base.shape == chunk.shape for chunk in chunks)
    # With very little memory each row of tiles is one chunk.
    assert len(list(load(red, tile="auto", margin=32, memory=1e-6).row_chunks(image))) == 4


def test_load_predict_and_eval_import_no_torch(red: Path, tmp_path: Path) -> None:
    image = picture(48, 40)
    Image.fromarray(image).save(tmp_path / "red.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = red_scores(image).argmax(0)
    assert np.array_equal(np.load(tmp_path / "mask.npy"), expected)
    assert np.array_equal(Image.open(tmp_path / "predictions/masks/red.png"), expected)
    with np.load(tmp_path / "out/probabilities/red.npz") as stored:
        probabilities = to_probabilities(red_scores(image))
        np.testing.assert_allclose(stored["probabilities"], probabilities, atol=1e-3)
    result = json.loads((tmp_path / "scored/result.json").read_text())
    assert (result["images"], result["flip"]) == (50, True)
    assert result["runtime"].startswith("onnxruntime ")
    assert result["loss"] > 0


def test_scores_mask_and_flip(red: Path) -> None:
    net, flipped, image = load(red, scales=1), load(red, flip=True), picture(6, 9)
    assert net.labels == SHAPES
    assert np.array_equal(net.scores(image), red_scores(image))
    # Reversed and read-only views are pictures too.
    assert np.array_equal(net.mask(image[:, ::-1]), red_scores(image[:, ::-1]).argmax(0))
    # The network is blind to place: the mirrored picture has the mirrored scores.
    expected = np.log(np.maximum(to_probabilities(red_scores(image)), np.finfo(np.float32).tiny))
    np.testing.assert_allclose(flipped.scores(image), expected, rtol=1e-6)


def test_the_mask_is_the_bundles_own_and_nan_is_an_error(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, image = load(red), picture(6, 9)
    scores, masks = net.run(image[None])
    monkeypatch.setattr(net, "run", lambda images: (scores, masks + 1))
    assert np.array_equal(net.mask(image), masks[0] + 1)
    scores[0, 2, 0, 0] = np.nan
    with pytest.raises(NotFiniteError):
        net.mask(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (0.5, 1.0)}, "scale 1 alone"),
        ({"device": "cuda"}, "auto or cpu"),
        ({"precision": "bf16"}, "runs in fp32"),
        ({"factory": "a:b"}, "leave --factory a:b out"),
    ],
)
def test_options_that_a_bundle_does_not_have(red: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(red, **options)


def test_what_a_bundle_cannot_do_is_an_error(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = load(red), picture(6, 9)
    with pytest.raises(UsageError, match="shows nothing but its scores"):
        load_trained(red)
    with pytest.raises(UsageError, match="6x9, not at 3x3"):
        net.scores(image, (3, 3))
    with pytest.raises(DataError, match="float64"):
        net.scores(image / 255)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[export\]'"):
        load(red)


CARD = json.loads(card().text())


def test_a_card_keeps_the_reader_of_pictures() -> None:
    assert CARD["format"] == 1
    reader = PictureReader(None, (0, 4095))
    text = replace(card(), reader=reader).text()
    assert json.loads(text)["format"] == 2
    assert parse_card(Path("a.onnx"), text).reader == reader


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no SeENet metadata"),
        ("{", "metadata is damaged"),
        ("[]", "metadata is damaged"),
        (json.dumps({**CARD, "format": 3}), "install a newer seenet"),
        (json.dumps({**CARD, "labels": {}}), "metadata is damaged"),
        *[
            (json.dumps({**CARD, "labels": {**CARD["labels"], "colours": colours}}), "damaged")
            for colours in ([[0, 0, 0]], [[0, 0, 256]] * 6)
        ],
    ],
)
def test_bad_cards_are_refused(text: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_card(Path("x.onnx"), text)


def test_the_card_comes_back_and_the_command_names_its_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse_card(Path("x.onnx"), card().text()) == card()
    path, out = write_red(tmp_path / "red.onnx", text=""), tmp_path / "out"
    assert seenet_command("predict", path, tmp_path, "--out", out) == 4
    assert f"{path}: " in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
