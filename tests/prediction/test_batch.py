"""Many pictures into a folder: what is written, skipped, refused, listed, and gone on with after a kill."""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import DataError, NotFiniteError, PartialError, UsageError
from seenet.prediction import base, batch, manifest
from seenet.prediction.batch import WAITING, background_writer, predict_files, prefetch
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import Result
from tests.prediction.doubles import LABELS, RedNet, draw, red_predictor, tree


def test_masks_overlays_and_manifest(photos, tmp_path):
    report = predict_files(red_predictor(), [photos], tmp_path / "out", probabilities=True)
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
    predict_files(red_predictor(), [photos], tmp_path / "out")
    before = tree(tmp_path / "out")
    again = red_predictor()
    report = predict_files(again, [photos], tmp_path / "out")
    assert (report.written, report.skipped) == (0, 3)
    assert again.model.calls == 0
    assert tree(tmp_path / "out") == before


def test_only_what_is_missing_is_done(photos, tmp_path):
    out = tmp_path / "out"
    predict_files(red_predictor(), [photos], out)
    before = tree(out)
    (out / "overlays/sub/b.jpg").unlink()
    report = predict_files(red_predictor(), [photos], out)
    assert (report.written, report.skipped) == (1, 2)
    assert tree(out) == before
    report = predict_files(red_predictor(), [photos], out, probabilities=True)
    assert (report.written, report.skipped) == (3, 0)


def change_input(photos, out):
    draw(photos / "a.png", 99)
    return red_predictor()


def change_model(photos, out):
    return Predictor(RedNet(), LABELS, device="cpu", info={"sha256": "1" * 64})


def change_settings(photos, out):
    return red_predictor(flip=True)


def edit_output(photos, out):
    draw(out / "masks/a.png", 5)
    return red_predictor()


def lose_manifest(photos, out):
    (out / "manifest.json").unlink()
    return red_predictor()


def a_folder_in_the_way(photos, out):
    (out / "overlays/a.jpg").unlink()
    (out / "overlays/a.jpg").mkdir()
    return red_predictor()


@pytest.mark.parametrize("change", [change_input, change_model, change_settings, edit_output, lose_manifest, a_folder_in_the_way])
def test_any_other_existing_file_is_refused_before_anything_is_written(photos, tmp_path, change):
    out = tmp_path / "out"
    predict_files(red_predictor(), [photos], out)
    changed = change(photos, out)
    before = tree(out)
    with pytest.raises(DataError, match="--overwrite") as caught:
        predict_files(changed, [photos], out)
    assert caught.value.exit_code == 4
    assert tree(out) == before


@pytest.mark.parametrize("change", [change_input, change_model, change_settings, edit_output, lose_manifest])
def test_overwrite_gives_what_a_fresh_run_gives(photos, tmp_path, change):
    out = tmp_path / "out"
    predict_files(red_predictor(), [photos], out)
    changed = change(photos, out)
    predict_files(changed, [photos], out, overwrite=True)
    predict_files(changed, [photos], tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_another_picture_of_the_same_stem_does_not_replace_the_first(tmp_path):
    draw(tmp_path / "a.png", 1)
    draw(tmp_path / "a.bmp", 2)
    predict_files(red_predictor(), [tmp_path / "a.png"], tmp_path / "out")
    with pytest.raises(DataError, match="--overwrite"):
        predict_files(red_predictor(), [tmp_path / "a.bmp"], tmp_path / "out")
    predict_files(red_predictor(), [tmp_path / "a.png", tmp_path / "a.bmp"], tmp_path / "both")
    assert sorted(path.name for path in (tmp_path / "both/masks").iterdir()) == ["a.bmp.png", "a.png.png"]


def test_bad_files_are_listed_and_the_rest_is_done(photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "sub/cut.png").write_bytes((photos / "a.png").read_bytes()[:60])
    report = predict_files(red_predictor(), [photos], tmp_path / "out")
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
    report = predict_files(red_predictor(), [tmp_path / "bad.jpg"], tmp_path / "out")
    with pytest.raises(DataError):
        report.check()
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_large_for_memory_is_one_failure(photos, tmp_path, monkeypatch, error):
    one = red_predictor()
    row_chunks = one.row_chunks
    monkeypatch.setattr(
        one,
        "row_chunks",
        lambda image, size: (_ for _ in ()).throw(error) if len(image) == 6 else row_chunks(image, size),
    )
    report = predict_files(one, [photos], tmp_path / "out")
    assert report.written == 2
    assert "memory" in report.failed[0][1]


@pytest.mark.parametrize("moment", ["network", "write", "rename", "recorded"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, "kill"])
def test_interrupted_and_run_again_gives_what_one_run_gives(photos, tmp_path, monkeypatch, moment, kind):
    """`kill` keeps the journal and temporary files, as no clean-up runs."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    predict_files(red_predictor(), [photos], whole)
    # A kill is one moment: nothing is written while the folder is copied.
    lock, honest = threading.RLock(), batch.save

    def save(*args, **keywords):
        with lock:
            honest(*args, **keywords)

    def stop_when(function, condition):
        def wrapped(*args, **keywords):
            if condition(*args):
                if kind == "kill":
                    with lock:
                        shutil.copytree(out, tmp_path / "killed")
                raise KeyboardInterrupt
            return function(*args, **keywords)

        return wrapped

    one = red_predictor()
    with monkeypatch.context() as patch:
        patch.setattr(batch, "save", save)
        if moment == "network":
            patch.setattr(one, "row_chunks", stop_when(one.row_chunks, lambda image, size: len(image) == 6))
        elif moment == "write":
            patch.setattr(
                Result,
                "write",
                stop_when(Result.write, lambda result, kind, _: (result.name, kind) == ("sub/b", "overlays")),
            )
        elif moment == "recorded":
            patch.setattr(manifest.Manifest, "record", stop_when(manifest.Manifest.record, lambda _, name, *__: name == "sub/b"))
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
    predict_files(red_predictor(), [photos], out)
    assert tree(out) == tree(whole)


def test_a_full_disk_is_one_clear_line(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Result, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left"):
        predict_files(red_predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {}


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_that_are_no_utf8_are_done_and_known_again(photos, tmp_path):
    draw(photos / os.fsdecode(b"caf\xe9.png"))
    assert predict_files(red_predictor(), [photos], tmp_path / "out").written == 4
    assert predict_files(red_predictor(), [photos], tmp_path / "out").skipped == 4
    assert (tmp_path / "out/masks" / os.fsdecode(b"caf\xe9.png")).is_file()


def test_a_picture_longer_than_a_jpeg_and_a_name_as_long_as_allowed(photos, tmp_path):
    Image.new("L", (66_000, 2)).save(photos / "long.png")
    draw(photos / ("ü" * 125 + ".png"))
    draw(photos / ("x" * 251 + ".png"))
    draw(photos / ("x" * 251 + ".bmp"))
    report = predict_files(red_predictor(), [photos], tmp_path / "out")
    # Beside each other these two keep their suffixes, for which there is no room; the rest is done.
    assert (report.written, [path.name[:5] for path, _ in report.failed]) == (5, ["xxxxx", "xxxxx"])
    assert all("outputs' names are too long" in message for _, message in report.failed)
    with Image.open(tmp_path / "out/masks/long.png") as mask, Image.open(tmp_path / "out/overlays/long.jpg") as overlay:
        assert (mask.size, overlay.size) == ((66_000, 2), (65_500, 2))


def test_outputs_by_another_name_are_no_inputs(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    for written in (3, 0):
        assert predict_files(red_predictor(), [photos], tmp_path / "link/out").written == written


def test_a_network_of_nan_stops(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "to_mask", lambda scores: (_ for _ in ()).throw(NotFiniteError("nan")))
    with pytest.raises(NotFiniteError):
        predict_files(red_predictor(), [photos], tmp_path / "out")


def test_a_file_as_out_and_a_model_of_no_file(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another --out"):
        predict_files(red_predictor(), [photos], tmp_path / "file")
    with pytest.raises(UsageError, match=r"seenet\.load"):
        predict_files(Predictor(RedNet(), LABELS, device="cpu"), [photos], tmp_path / "out")


def test_jobs_run_in_order_beside_the_block_and_all_of_them() -> None:
    done: list[int] = []
    with background_writer() as later:
        for number in range(6):
            later(lambda number=number: (time.sleep(0.01), done.append(number))[1])
            assert len(done) >= number - WAITING
        assert len(done) < 6
    assert done == list(range(6))


def test_an_error_comes_out_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def job(number: int) -> None:
        time.sleep(0.01)
        if number == 1:
            raise OSError("full")
        done.append(number)

    def run(numbers: range) -> None:
        with background_writer() as later:
            for number in numbers:
                later(lambda number=number: job(number))

    with pytest.raises(OSError, match="full"):
        run(range(50))
    assert done[0] == 0 and max(done) <= 2 + WAITING
    # The last one's too.
    with pytest.raises(OSError, match="full"):
        run(range(1, 2))


def test_left_by_a_signal_the_job_in_hand_is_finished_and_no_thread_stays() -> None:
    before, started, done = threading.active_count(), threading.Event(), []

    def job(number: int) -> None:
        started.set()
        time.sleep(0.05)
        done.append(number)

    def run() -> None:
        with background_writer() as later:
            later(lambda: job(0))
            later(lambda: job(1))
            started.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == [0]
    assert threading.active_count() == before


def test_order_values_and_errors_are_kept():
    def read(item):
        if item == 3:
            raise ValueError("three")
        return item * 10

    seen = []
    for item, value in prefetch(range(5), read):
        if item == 3:
            with pytest.raises(ValueError, match="three"):
                value.result()
        else:
            seen.append((item, value.result()))
    assert seen == [(0, 0), (1, 10), (2, 20), (4, 40)]


def test_reads_one_ahead_and_no_more():
    started = []
    for item, value in prefetch(range(6), lambda item: started.append(item)):
        value.result()
        time.sleep(0.02)
        assert max(started) <= item + 1
    assert started == list(range(6))


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    reads = prefetch(range(100), lambda item: item)
    next(reads)
    reads.close()
    assert threading.active_count() == before


def test_nothing_to_read():
    assert list(prefetch([], str)) == []
