"""Files that version 0.1.0 wrote are read and continued; README.md says how they were made."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seenet
from seenet.cli import main
from seenet.core.images import read_image
from seenet.core.recipe_files import load_recipe
from seenet.evaluation.run import run_evaluation
from seenet.prediction.predictor import Predictor
from seenet.training.trainer import train

ARCHIVE = Path(__file__).parent / "0.1.0.tar.xz"
SHAPES = ["data.kind=shapes", "data.size=96", "data.count=24"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def kept(unpacked: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(unpacked, tmp_path / "kept"))


def losses(path: Path) -> dict[int, float]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def ids(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        return np.array(mask)


def test_a_run_goes_on_from_its_checkpoint(kept: Path) -> None:
    """Its losses are those of 0.1.0's uninterrupted run, up to another processor's rounding."""
    before = losses(kept / "run" / "metrics.jsonl")
    assert list(before) == [1, 2, 3]
    train(load_recipe(kept / "run" / "recipe.yaml"), kept / "run", resume=True)
    whole, found = losses(kept / "run-whole.metrics.jsonl"), losses(kept / "run" / "metrics.jsonl")
    assert list(found) == list(whole) == [1, 2, 3, 4, 5, 6]
    assert {step: found[step] for step in before} == before
    assert found == pytest.approx(whole, rel=1e-3)
    assert seenet.load(kept / "run").labels.num_classes == 6


@pytest.mark.slow
def test_torch_reads_its_program_as_before(unpacked: Path) -> None:
    """SeENet writes .pt2 files for others and reads none."""
    run = torch.export.load(unpacked / "model.pt2").module()
    for picture in sorted((unpacked / "pictures").glob("*.png")):
        mask, _ = run(torch.from_numpy(read_image(picture))[None])
        assert (mask[0].numpy() == ids(unpacked / "expected" / picture.name)).mean() >= 0.9999


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.xml"])
def test_models_and_bundles_answer_as_before(unpacked: Path, name: str) -> None:
    net = seenet.load(unpacked / name)
    pictures = sorted((unpacked / "pictures").glob("*.png"))
    assert len(pictures) == 3
    expected = np.stack([ids(unpacked / "expected" / picture.name) for picture in pictures])
    found = np.stack([net(picture).mask for picture in pictures])
    assert len(np.unique(expected)) > 1
    # The weights of the OpenVINO file are fp16.
    assert (found == expected).mean() >= (0.99 if name == "model.xml" else 0.9999)


def test_an_evaluation_goes_on(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty of fifty pictures are counted; the same kind of machine does not count them again."""
    journal = kept / "evaluation" / "partial" / "rank-0"
    line, _, records = journal.read_bytes().partition(b"\n")
    machine = {**seenet.load(kept / "model.safetensors").machine, **seen_now()}
    key = {name: machine.get(name, value) for name, value in json.loads(line).items()}
    journal.write_bytes(json.dumps(key, sort_keys=True).encode() + b"\n" + records)
    seen = []
    row_chunks = Predictor.row_chunks

    def counted(self: Predictor, *arguments: Any) -> Any:
        seen.append(arguments)
        return row_chunks(self, *arguments)

    monkeypatch.setattr(Predictor, "row_chunks", counted)
    report = run_evaluation(kept / "model.safetensors", None, SHAPES, out=kept / "evaluation")
    shown = len(list((kept / "evaluation" / "images").iterdir()))
    assert len(seen) == 30 + shown
    before = json.loads((kept / "evaluated.json").read_text(encoding="utf-8"))
    assert report.result["miou"] == pytest.approx(before["miou"], abs=1e-3)
    found, expected = np.array(report.result["confusion"]), np.array(before["confusion"])
    assert found.sum() == expected.sum()
    assert abs(found - expected).sum() <= 1e-3 * expected.sum()
    assert not journal.exists()


def seen_now() -> dict[str, Any]:
    """What else the key of an evaluation says of the libraries and the version."""
    return {"torch": torch.__version__, "pillow": Image.__version__, "version": seenet.__version__}


def test_predictions_go_on(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = kept / "predictions"
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*s/*")}
    assert len(files) == 4
    way = ["--runtime", "eager", "--precision", "fp32", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "predict",
                str(kept / "model.safetensors"),
                str(kept / "pictures"),
                "--out",
                str(out),
                *way,
            ]
        )
    report = json.loads(capsys.readouterr().out)
    assert (ended.value.code, report["skipped"], report["written"], report["failed"]) == (
        0,
        2,
        1,
        [],
    )
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == files
    assert (ids(out / "masks" / "3.png") == ids(kept / "expected" / "3.png")).mean() >= 0.9999
    assert sorted(json.loads((out / "manifest.json").read_text(encoding="utf-8"))) == [
        "1",
        "2",
        "3",
    ]
