"""Command lines, their exit codes and outputs."""

import json
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from seenet.cli import COMMANDS
from seenet.data.shapes import ShapesSplit
from tests.cli.commands import run


def test_help_imports_nothing_heavy() -> None:
    heavy = "sorted({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    program = (
        f"import sys; from seenet.cli import main\ntry: main(['--help'])\nfinally: print({heavy})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and "Usage: seenet" in out


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("trian", 2, "nearest: train"),
        ("train shapes --nonsense", 2, "--nonsense"),
        ("train shape", 2, "nearest: shapes"),
        ("train shapes training.step=1", 2, "nearest: steps"),
        ("train camvid-lite0 data.root=nowhere", 4, "nowhere"),
        ("train shapes --device tpu", 2, "tpu"),
        ("train . --resume", 2, "recipe"),
        ("train shapes optimizer.betas=[0.9,1.5] --show", 2, "betas.1: found 1.5"),
        ("eval nothing-here shapes", 4, "nothing-here"),
        ("eval nothing-here shapes --widths 1,2.5", 2, "--widths 1,2.5"),
        ("eval nothing-here shapes folder-lite0", 2, "folder-lite0"),
        ("eval camvid-lite0 data.kind=shapes --mean-over disk", 2, "nearest: disc"),
        ("predict nothing-here a.jpg --tile large", 2, "--tile large"),
        ("export camvid-lite0 --format fp16 --out x.onnx", 4, "--format onnx, openvino or torch"),
        ("figure width", 2, "widths"),
        ("figure widths none.json", 4, "none.json"),
        ("model seanet", 2, "nearest: seenet"),
        ("model seenet num_classes=3", 2, "--classes"),
        ("model --size 0", 2, "size"),
        ("import none.pth out.safetensors", 4, "none.pth"),
        ("import done.safetensors", 2, "done.safetensors"),
        ("data init nowhere", 4, "nowhere"),
        ("data build-trainaug nowhere VOCdevkit", 4, "VOCdevkit"),
        ("data show shapes model.backbone=resnet81", 2, "nearest: resnet"),
        ("submit voc --images pictures", 2, "--masks"),
        ("submit cityscapes run --masks masks --images pictures", 2, "--masks"),
        ("submit voc --masks masks --images pictures", 4, "pictures"),
        ("submit check none.zip", 4, "none.zip"),
    ],
)
def test_wrong_usage_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, *shlex.split(line))
    assert found == code, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("seenet: ") and message in last


@pytest.mark.parametrize(
    ("effect", "code", "start"),
    [
        (ZeroDivisionError("oops"), 1, "seenet: a bug: ZeroDivisionError: oops; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory:\n 9"), 1, "seenet: out of"),
        (KeyboardInterrupt, 130, "seenet: interrupted"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "seenet: terminated"),
    ],
)
def test_unexpected_errors_and_signals_are_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    effect: object,
    code: int,
    start: str,
) -> None:
    failing = Mock(side_effect=effect)
    monkeypatch.setattr("seenet.core.settings.Recipe.model_json_schema", failing)
    found, _, err = run(capsys, "schema")
    assert (found, err.count("\n")) == (code, 1) and err.startswith(start)
    if "a bug" in err:
        kept = Path(err.strip().rsplit(" ", 1)[-1])
        assert "ZeroDivisionError: oops" in kept.read_text()
        kept.unlink()


def test_model_lists_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "model", "seenet", "--backbone", "resnet101", "--size", "512")[1]
    assert "5120 x 64 x 64" in out and "53,214,293" in out and "818 pixels" in out
    code, out, _ = run(capsys, "model", "pfp", "--backbone", "mobilenetv3_small_050", "--json")
    assert code == 0 and json.loads(out)["receptive_radius"] is None
    assert "seenet (j)" in run(capsys, "model", "--list")[1]


def test_schema_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert "training" in json.loads(run(capsys, "schema")[1])["properties"]
    assert "steps: 7" in run(capsys, "train", "shapes", "training.steps=7", "--show")[1]


def test_train_eval_predict(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run all steps on drawn scenes; validation in training and `eval` count the same."""
    monkeypatch.chdir(tmp_path)

    def output(*arguments: str) -> str:
        code, out, err = run(capsys, *arguments)
        assert code == 0, err
        return out.strip()

    tiny = [
        "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16",
        "data.size=48", "data.count=20", "transforms.crop=48", "training.steps=2",
        "training.batch=2", "training.workers=0", "training.validate_every=0",
    ]  # fmt: skip
    cpu, evaluate = ["--device", "cpu"], ["eval", "run", "--device", "cpu"]
    assert (
        json.loads(output("train", "shapes", *tiny, "--out", "run", "--json", *cpu))["steps"] == 2
    )
    result = json.loads(output(*evaluate, "--json"))
    assert result["confusion"] == json.loads(Path("run/val.json").read_text())["confusion"]
    assert output("figure", "widths", "run/eval/val/result.json") == "written: widths.png"
    over = output(*evaluate, "--mean-over", "disc, ring", "--out", "over", "--json")
    assert json.loads(over)["mean_over"]["classes"] == ["disc", "ring"]
    Image.fromarray(ShapesSplit("val", 50, 48).image(0)).save("scene.png")
    output("predict", "run", "scene.png", *cpu)
    assert Image.open("predictions/masks/scene.png").size == (48, 48)
    page = Path(output("report", "run", *cpu).removeprefix("open "))
    assert "mIoU" in page.read_text()
    assert Path(output("data", "show", "shapes", *tiny).removeprefix("open ")).is_file()


@pytest.mark.parametrize(
    ("redirect", "code", "message"),
    [
        # The reader of a pipe has gone.
        ("| :", 0, ""),
        (">&-", 0, ""),
        pytest.param(
            "> /dev/full",
            4,
            "No space left on device",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
        ),
    ],
)
def test_an_output_that_cannot_be_written(redirect: str, code: int, message: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m seenet train shapes --show {redirect}"
    script = f"{line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == (code > 0) and message in done.stderr


def test_warnings_of_pillow_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        run(capsys, "--version")
        warnings.warn_explicit("an odd tag", UserWarning, "PIL/any.py", 1, module="PIL.any")
        warnings.warn_explicit("another", UserWarning, "any.py", 1, module="any")
    assert [str(one.message) for one in caught] == ["another"]
