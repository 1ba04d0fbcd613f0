import fcntl
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import BusyError, DataError, NotFiniteError, PartialError, UsageError
from seenet.prediction import base, batch, manifest, outputs
from seenet.prediction.batch import predict_files
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet

INFO = {"file": "red.safetensors", "sha256": "0" * 64}


def predictor(**keywords) -> Predictor:
    return Predictor(RedNet(), LABELS, device="cpu", info=INFO, **keywords)


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(["a.png", "sub/b.png", "sub/c.bmp"]):
        draw(tmp_path / "photos" / name, number, (5 + number, 8))
    return tmp_path / "photos"


def test_masks_overlays_and_manifest(photos, tmp_path):
    report = predict_files(predictor(), [photos], tmp_path / "out", probabilities=True)
    assert (report.written, report.skipped, report.failed) == (3, 0, [])
    assert sorted(tree(tmp_path / "out")) == sorted(
        ["manifest.json", *(f"{kind}/{name}.{suffix}" for name in ("a", "sub/b", "sub/c")
                            for kind, suffix in (("masks", "png"), ("overlays", "jpg"), ("probabilities", "npz")))]
    )  # fmt: skip
    for name, source in (("a", "a.png"), ("sub/b", "sub/b.png"), ("sub/c", "sub/c.bmp")):
        with Image.open(photos / source) as image, Image.open(tmp_path / f"out/masks/{name}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.minimum(np.asarray(image)[:, :, 0] // 85, 2))
    report.check()
    assert 0 < report.result()["network_seconds"] <= report.result()["seconds"]


def test_a_second_run_skips_all_and_changes_nothing(photos, tmp_path):
    predict_files(predictor(), [photos], tmp_path / "out")
    before = tree(tmp_path / "out")
    again = predictor()
    report = predict_files(again, [photos], tmp_path / "out")
    assert (report.written, report.skipped) == (0, 3)
    assert again.model.calls == 0
    assert tree(tmp_path / "out") == before


def test_only_what_is_missing_is_done(photos, tmp_path):
    out = tmp_path / "out"
    predict_files(predictor(), [photos], out)
    before = tree(out)
    (out / "overlays/sub/b.jpg").unlink()
    report = predict_files(predictor(), [photos], out)
    assert (report.written, report.skipped) == (1, 2)
    assert tree(out) == before
    report = predict_files(predictor(), [photos], out, probabilities=True)
    assert (report.written, report.skipped) == (3, 0)


def change_input(photos, out):
    draw(photos / "a.png", 99)
    return predictor()


def change_model(photos, out):
    return Predictor(RedNet(), LABELS, device="cpu", info={"sha256": "1" * 64})


def change_settings(photos, out):
    return predictor(flip=True)


def edit_output(photos, out):
    draw(out / "masks/a.png", 5)
    return predictor()


def lose_manifest(photos, out):
    (out / "manifest.json").unlink()
    return predictor()


def a_folder_in_the_way(photos, out):
    (out / "overlays/a.jpg").unlink()
    (out / "overlays/a.jpg").mkdir()
    return predictor()


@pytest.mark.parametrize("change", [change_input, change_model, change_settings, edit_output, lose_manifest, a_folder_in_the_way])
def test_any_other_existing_file_is_refused_before_anything_is_written(photos, tmp_path, change):
    out = tmp_path / "out"
    predict_files(predictor(), [photos], out)
    changed = change(photos, out)
    before = tree(out)
    with pytest.raises(DataError, match="--overwrite") as caught:
        predict_files(changed, [photos], out)
    assert caught.value.exit_code == 4
    assert tree(out) == before


@pytest.mark.parametrize("change", [change_input, change_model, change_settings, edit_output, lose_manifest])
def test_overwrite_gives_what_a_fresh_run_gives(photos, tmp_path, change):
    out = tmp_path / "out"
    predict_files(predictor(), [photos], out)
    changed = change(photos, out)
    predict_files(changed, [photos], out, overwrite=True)
    predict_files(changed, [photos], tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_another_picture_of_the_same_stem_does_not_replace_the_first(tmp_path):
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "a.bmp", 2)
    predict_files(predictor(), [tmp_path / "a.png"], tmp_path / "out")
    with pytest.raises(DataError, match="--overwrite"):
        predict_files(predictor(), [tmp_path / "a.bmp"], tmp_path / "out")
    predict_files(predictor(), [tmp_path / "a.png", tmp_path / "a.bmp"], tmp_path / "both")
    assert sorted(path.name for path in (tmp_path / "both/masks").iterdir()) == ["a.bmp.png", "a.png.png"]


def test_bad_files_are_listed_and_the_rest_is_done(photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "sub/cut.png").write_bytes((photos / "a.png").read_bytes()[:60])
    report = predict_files(predictor(), [photos], tmp_path / "out")
    assert report.written == 3
    assert {path.name for path, _ in report.failed} == {"bad.jpg", "cut.png"}
    with pytest.raises(PartialError, match=r"2 of 5 .*bad\.jpg.*cut\.png") as caught:
        report.check()
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert json.loads(json.dumps(report.result()))["failed"][0]["input"].endswith("bad.jpg")
    assert not (tmp_path / "out/masks/bad.png").exists()


def test_where_nothing_could_be_done_it_is_bad_data(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    report = predict_files(predictor(), [tmp_path / "bad.jpg"], tmp_path / "out")
    with pytest.raises(DataError):
        report.check()
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_large_for_memory_is_one_failure(photos, tmp_path, monkeypatch, error):
    one = predictor()
    stripes = one.stripes
    monkeypatch.setattr(
        one,
        "stripes",
        lambda image, size: (_ for _ in ()).throw(error) if len(image) == 6 else stripes(image, size),
    )
    report = predict_files(one, [photos], tmp_path / "out")
    assert report.written == 2
    assert "memory" in report.failed[0][1]


@pytest.mark.parametrize("moment", ["network", "write", "rename", "recorded"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, "kill"])
def test_interrupted_and_run_again_gives_what_one_run_gives(photos, tmp_path, monkeypatch, moment, kind):
    """`kill` keeps the journal and temporary files, as no clean-up runs."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    predict_files(predictor(), [photos], whole)
    # A kill is one moment: nothing is written while the folder is copied.
    lock = threading.RLock()

    def save(*args, **keywords):
        with lock:
            outputs.save(*args, **keywords)

    def stop_when(function, condition):
        def wrapped(*args, **keywords):
            if condition(*args):
                if kind == "kill":
                    with lock:
                        shutil.copytree(out, tmp_path / "killed")
                raise KeyboardInterrupt
            return function(*args, **keywords)

        return wrapped

    one = predictor()
    with monkeypatch.context() as patch:
        patch.setattr(batch, "save", save)
        if moment == "network":
            patch.setattr(one, "stripes", stop_when(one.stripes, lambda image, size: len(image) == 6))
        elif moment == "write":
            patch.setattr(
                outputs.Result,
                "write",
                stop_when(outputs.Result.write, lambda result, kind, _: (result.name, kind) == ("sub/b", "overlays")),
            )
        elif moment == "recorded":
            patch.setattr(outputs.Manifest, "record", stop_when(outputs.Manifest.record, lambda _, name, *__: name == "sub/b"))
        else:
            # The overlay has its name by then.
            patch.setattr(Path, "replace", stop_when(Path.replace, lambda _, target: target == out / "masks/sub/b.png"))
        with pytest.raises(KeyboardInterrupt):
            predict_files(one, [photos], out)
    if kind == "kill":
        shutil.rmtree(out)
        (tmp_path / "killed").rename(out)
        assert (out / ".manifest.jsonl").exists()
    else:
        assert not list(out.rglob(".*"))
    predict_files(predictor(), [photos], out)
    assert tree(out) == tree(whole)


def test_a_cut_last_line_of_the_journal_is_dropped(photos, tmp_path):
    out = tmp_path / "out"
    predict_files(predictor(), [photos], out)
    whole = tree(out)
    entries = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").unlink()
    lines = [json.dumps({"name": name, "entry": entry}) + "\n" for name, entry in entries.items()]
    for path in ("masks/sub/c.png", "overlays/sub/c.jpg"):
        (out / path).unlink()
    (out / ".manifest.jsonl").write_text("".join(lines)[:-30])
    predict_files(predictor(), [photos], out)
    assert tree(out) == whole


def test_one_process_at_a_time(photos, tmp_path):
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(BusyError):
            predict_files(predictor(), [photos], tmp_path / "out")
    finally:
        os.close(handle)
    assert predict_files(predictor(), [photos], tmp_path / "out").written == 3


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": {"outputs": {}}}'])
def test_a_damaged_manifest_is_named(photos, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        predict_files(predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {"manifest.json": text.encode()}


def test_a_full_disk_is_one_clear_line(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.Result, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left"):
        predict_files(predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_a_disk_that_is_full_at_the_end_loses_nothing(photos, tmp_path, monkeypatch):
    whole = predict_files(predictor(), [photos], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match=r"manifest\.json: cannot be written \(No space left on device\); make room and run it again"):
            predict_files(predictor(), [photos], tmp_path / "out")
    assert predict_files(predictor(), [photos], tmp_path / "out").skipped == whole.written
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_that_are_no_utf8_are_done_and_known_again(photos, tmp_path):
    draw(photos / os.fsdecode(b"caf\xe9.png"))
    assert predict_files(predictor(), [photos], tmp_path / "out").written == 4
    assert predict_files(predictor(), [photos], tmp_path / "out").skipped == 4
    assert (tmp_path / "out/masks" / os.fsdecode(b"caf\xe9.png")).is_file()


def test_a_picture_longer_than_a_jpeg_and_a_name_as_long_as_allowed(photos, tmp_path):
    Image.new("L", (66_000, 2)).save(photos / "long.png")
    draw(photos / ("ü" * 125 + ".png"))
    draw(photos / ("x" * 251 + ".png"))
    draw(photos / ("x" * 251 + ".bmp"))
    report = predict_files(predictor(), [photos], tmp_path / "out")
    # Beside each other these two keep their suffixes, for which there is no room; the rest is done.
    assert (report.written, [path.name[:5] for path, _ in report.failed]) == (5, ["xxxxx", "xxxxx"])
    assert all("outputs' names are too long" in message for _, message in report.failed)
    with Image.open(tmp_path / "out/masks/long.png") as mask, Image.open(tmp_path / "out/overlays/long.jpg") as overlay:
        assert (mask.size, overlay.size) == ((66_000, 2), (65_500, 2))


def test_outputs_by_another_name_are_no_inputs(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    for written in (3, 0):
        assert predict_files(predictor(), [photos], tmp_path / "link/out").written == written


def test_a_network_of_nan_stops(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "to_mask", lambda scores: (_ for _ in ()).throw(NotFiniteError("nan")))
    with pytest.raises(NotFiniteError):
        predict_files(predictor(), [photos], tmp_path / "out")


def test_a_file_as_out_and_a_model_of_no_file(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another --out"):
        predict_files(predictor(), [photos], tmp_path / "file")
    with pytest.raises(UsageError, match=r"seenet\.load"):
        predict_files(Predictor(RedNet(), LABELS, device="cpu"), [photos], tmp_path / "out")
