"""What a user types, and the code and the one line that come back."""

import json
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seenet.cli import COMMANDS, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_help_imports_nothing_heavy() -> None:
    heavy = "sorted({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    program = f"import sys; from seenet.cli import main\ntry: main(['--help'])\nfinally: print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in {"data", "submit"}])
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "Usage: seenet" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "nearest: train"),
        (["train", "shapes", "--nonsense"], 2, "No such option"),
        (["train", "shape"], 2, "nearest: shapes"),
        (["train", "shapes", "training.step=1"], 2, "nearest: steps"),
        (["train", "camvid-lite0", "data.root=nowhere"], 4, "SegNet"),
        (["train", "shapes", "--device", "tpu"], 2, "device tpu"),
        (["eval", "nothing-here", "shapes"], 4, "nothing-here"),
        (["eval", "nothing-here", "shapes", "--widths", "1,2.5"], 2, "whole numbers"),
        (["train", ".", "--resume"], 2, "unknown recipe"),
        (["export", "camvid-lite0", "--format", "fp16", "--out", "x.onnx"], 4, "other files need --format onnx, openvino or torch"),
        (["train", "shapes", "optimizer.betas=[0.9,1.5]", "--show"], 2, "betas.1: found 1.5; input should be less than 1"),
        (["figure", "width"], 2, "widths"),
        (["figure", "widths", "none.json"], 4, "no such file"),
        (["model", "seanet"], 2, "nearest: seenet"),
        (["model", "seenet", "num_classes=3"], 2, "give it by --classes"),
        (["model", "--size", "0"], 2, "size"),
        (["import", "none.pth", "out.safetensors"], 4, "no such file"),
        (["import", "done.safetensors"], 2, "is .safetensors already"),
        (["data", "init", "nowhere"], 4, "no such folder"),
        (["data", "build-trainaug", "nowhere", "VOCdevkit"], 4, "VOCdevkit: no such folder"),
        (["submit", "voc", "--images", "pictures"], 2, "neither a model nor --masks"),
        (["submit", "cityscapes", "run", "--masks", "masks", "--images", "pictures"], 2, "give one of them"),
        (["submit", "voc", "--masks", "masks", "--images", "pictures"], 4, "pictures: no such list"),
        (["submit", "check", "none.zip"], 4, "none.zip: cannot be read"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *arguments)
    assert found == code
    assert message in err
    assert err.strip().splitlines()[-1].startswith("seenet: ")


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("seenet.core.settings.Recipe.model_json_schema", broken)
    code, _, err = run(capsys, "schema")
    assert code == 1
    kept = Path(err.strip().rsplit(" ", 1)[-1])
    assert "ZeroDivisionError: oops" in kept.read_text()
    kept.unlink()


def test_model_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "model", "seenet", "--backbone", "resnet101", "--size", "512")
    assert code == 0
    assert "5120 x 64 x 64" in out
    assert "53,214,293" in out
    assert out.endswith("receptive radius: 818 pixels\n")
    code, out, _ = run(capsys, "model", "pfp", "--backbone", "mobilenetv3_small_050", "--json")
    assert code == 0 and json.loads(out)["receptive_radius"] is None
    assert "seenet (j)" in run(capsys, "model", "--list")[1]


def test_schema_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert "training" in json.loads(run(capsys, "schema")[1])["properties"]
    assert "steps: 7" in run(capsys, "train", "shapes", "training.steps=7", "--show")[1]


def test_submit(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "masks"):
        Path(folder).mkdir()
        Image.fromarray(np.full((5, 6), 3, np.uint8)).save(f"{folder}/2008_000001.png")
    code, out, err = run(capsys, "submit", "voc", "--masks", "masks", "--images", "pictures", "--competition", "5")
    assert code == 0, err
    assert "submissions/voc-comp5.tar.gz: 1 masks for voc" in out
    assert run(capsys, "submit", "check", "submissions/voc-comp5.tar.gz", "--images", "pictures")[0] == 0
    code, _, err = run(capsys, "submit", "check", "submissions/voc-comp5.tar.gz")
    assert code == 6
    assert "1 masks, expected 1456" in err


def test_train_eval_predict(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path on drawn scenes: validation in training and `eval` count the same."""
    monkeypatch.chdir(tmp_path)
    tiny = [
        "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "data.size=48", "data.count=20",
        "transforms.crop=48", "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0",
    ]  # fmt: skip
    code, out, err = run(capsys, "train", "shapes", *tiny, "--out", "run", "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(out)["steps"] == 2
    code, out, err = run(capsys, "eval", "run", "--json", "--device", "cpu")
    assert code == 0, err
    code, written, err = run(capsys, "figure", "widths", "run/eval/val/result.json")
    assert (code, written) == (0, "written: widths.png\n"), err
    assert Image.open("widths.png").format == "PNG"
    assert run(capsys, "eval", "run", "--mean-over", "disk", "--out", "more", "--device", "cpu")[2].strip().endswith("nearest: disc")
    code, more, err = run(capsys, "eval", "run", "--mean-over", "disc, ring", "--out", "over", "--json", "--device", "cpu")
    assert (code, json.loads(more)["mean_over"]["classes"]) == (0, ["disc", "ring"]), err
    assert json.loads(out)["confusion"] == json.loads(Path("run/val.json").read_text())["confusion"]
    from seenet.data.shapes import ShapesSplit

    Image.fromarray(ShapesSplit("val", 50, 48).image(0)).save("scene.png")
    code, _, err = run(capsys, "predict", "run", "scene.png", "--device", "cpu")
    assert code == 0, err
    assert Image.open("predictions/masks/scene.png").size == (48, 48)
    code, out, err = run(capsys, "report", "run", "--device", "cpu")
    assert code == 0, err
    assert "mIoU" in Path(out.strip().removeprefix("open ")).read_text()
    code, out, err = run(capsys, "data", "show", "shapes", *tiny)
    assert code == 0, err
    assert Path(out.strip().removeprefix("open ")).is_file()


def typed(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "seenet", *arguments], stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = typed("train", "shapes", "--show", stdout=writing)
    os.close(writing)
    assert (done.communicate()[1], done.returncode) == ("", 0)


def test_without_a_standard_output_it_works() -> None:
    command = f"{shlex.quote(sys.executable)} -m seenet train shapes --show >&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_no_bug() -> None:
    with Path("/dev/full").open("w") as full:
        done = typed("train", "shapes", "--show", stdout=full)
        said = done.communicate()[1]
    assert (said, done.returncode) == ("seenet: an output: cannot be written or read (No space left on device)\n", 4)


def test_too_little_memory_is_no_bug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def short(**_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\n you tried 9 bytes")

    monkeypatch.setattr("seenet.core.settings.Recipe.model_json_schema", short)
    code, _, err = run(capsys, "schema")
    assert (code, err.count("\n")) == (1, 1) and err.startswith("seenet: out of memory ([enforce fail]")


def test_pillow_warns_of_nothing_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        run(capsys, "--version")
        warnings.warn_explicit("an odd tag", UserWarning, "PIL/any.py", 1, module="PIL.any")
        warnings.warn_explicit("another", UserWarning, "any.py", 1, module="any")
    assert [str(one.message) for one in caught] == ["another"]
