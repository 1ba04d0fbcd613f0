"""Many pictures into a folder: what is written, skipped, refused, listed, and done after a kill."""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import DataError, NotFiniteError, PartialError, UsageError
from seenet.prediction import base, manifest
from seenet.prediction.batch import QUEUED_JOBS, background_writer, predict_files, prefetch
from seenet.prediction.manifest import Manifest
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import Result
from tests.prediction.doubles import draw, raising, red_predictor, tree


def test_files_are_written_once_and_a_second_run_does_only_what_is_missing(photos, tmp_path):
    out = tmp_path / "out"

    def run(**options):
        predictor = red_predictor()
        report = predict_files(predictor, [photos], out, **options)
        report.check()
        assert 0 <= report.result()["network_seconds"] <= report.result()["seconds"]
        return report.written, report.skipped, predictor.model.calls

    assert run() == (3, 0, 3)
    before = tree(out)
    assert run() == (0, 3, 0)
    (out / "overlays/sub/b.jpg").unlink()
    assert run() == (1, 2, 1)
    assert tree(out) == before
    assert run(probabilities=True) == (3, 0, 3)
    kinds = (("masks", "png"), ("overlays", "jpg"), ("probabilities", "npz"))
    assert tree(out).keys() == {
        "manifest.json",
        *(f"{kind}/{name}.{suffix}" for name in ("a", "sub/b", "sub/c") for kind, suffix in kinds),
    }
    for source in ("a.png", "sub/b.png", "sub/c.bmp"):
        red = np.asarray(Image.open(photos / source))[:, :, 0]
        assert np.array_equal(
            Image.open(out / f"masks/{source[:-4]}.png"), np.minimum(red // 85, 2)
        )


CHANGES = {
    "input": (lambda photos, out: draw(photos / "a.png", 99), {}),
    "model": (lambda photos, out: None, {"info": {"sha256": "1" * 64}}),
    "settings": (lambda photos, out: None, {"flip": True}),
    "output": (lambda photos, out: draw(out / "masks/a.png", 5), {}),
    "manifest": (lambda photos, out: (out / "manifest.json").unlink(), {}),
    "folder": (
        lambda photos, out: ((out / "overlays/a.jpg").unlink(), (out / "overlays/a.jpg").mkdir()),
        {},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_are_refused_first_and_replaced_by_overwrite(photos, tmp_path, change):
    out, (edit, options) = tmp_path / "out", CHANGES[change]
    predict_files(red_predictor(), [photos], out)
    edit(photos, out)
    before = tree(out)
    with pytest.raises(DataError, match="--overwrite"):
        predict_files(red_predictor(**options), [photos], out)
    assert tree(out) == before
    if change != "folder":
        predict_files(red_predictor(**options), [photos], out, overwrite=True)
        predict_files(red_predictor(**options), [photos], tmp_path / "fresh")
        assert tree(out) == tree(tmp_path / "fresh")


def test_a_file_that_appears_during_the_run_is_not_replaced(photos, tmp_path, monkeypatch):
    mask, honest = tmp_path / "out/masks/a.png", Predictor.row_chunks

    def row_chunks(*arguments):
        draw(mask)
        return honest(*arguments)

    monkeypatch.setattr(Predictor, "row_chunks", row_chunks)
    with pytest.raises(DataError, match=r"a\.png: .*--overwrite"):
        predict_files(red_predictor(), [photos / "a.png"], tmp_path / "out")
    assert tree(tmp_path / "out").keys() == {"masks/a.png"}


def test_bad_files_are_listed_and_the_rest_is_done(photos, tmp_path, monkeypatch):
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "sub/cut.png").write_bytes((photos / "a.png").read_bytes()[:60])
    # Too large for memory.
    draw(photos / "huge.png", size=(50, 4))
    predictor = red_predictor()
    mask, fails = predictor.mask, raising(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(
        predictor, "mask", lambda image: (fails if len(image) == 50 else mask)(image)
    )
    report = predict_files(predictor, [photos], tmp_path / "out")
    assert report.written == 3
    failed = {Path(entry["input"]).name: entry["error"] for entry in report.result()["failed"]}
    assert failed.keys() == {"bad.jpg", "cut.png", "huge.png"}
    assert "50x4 pixels are too many for this machine's memory" in failed["huge.png"]
    with pytest.raises(PartialError, match=r"3 of 6 .*bad\.jpg.*cut\.png"):
        report.check()
    with pytest.raises(DataError):
        predict_files(red_predictor(), [photos / "bad.jpg"], tmp_path / "none").check()
    assert tree(tmp_path / "none") == {}


MOMENTS = {
    "network": (Predictor, "row_chunks", lambda _, image, size: len(image) == 6),
    "write": (
        Result, "write", lambda result, kind, _: (result.name, kind) == ("sub/b", "overlays")
    ),
    "record": (Manifest, "record", lambda _, name, *__: name == "sub/b"),
    # The overlay has its name by then.
    "rename": (Path, "replace", lambda _, target: target.parts[-3:] == ("masks", "sub", "b.png")),
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kill", [False, True])
def test_interrupted_and_run_again_gives_what_one_run_gives(
    photos, tmp_path, monkeypatch, moment, kill
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    predict_files(red_predictor(), [photos], whole)
    owner, name, condition = MOMENTS[moment]
    honest = getattr(owner, name)

    def stopping(*arguments):
        if condition(*arguments):
            raise KeyboardInterrupt
        return honest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        if kill:
            # A kill leaves temporary files and the journal.
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            patch.setattr(manifest, "_merge_journals", lambda _: {})
        with pytest.raises(KeyboardInterrupt):
            predict_files(red_predictor(), [photos], out)
    assert ([path.name for path in out.glob(".*")] == [".manifest.0-1.jsonl"]) == kill
    predict_files(red_predictor(), [photos], out)
    assert tree(out) == tree(whole)


@pytest.mark.parametrize(
    ("owner", "name", "error", "expected", "message"),
    [
        (Result, "write", OSError(28, "No space left"), DataError, "No space left"),
        (base, "to_mask", NotFiniteError("scores are NaN"), NotFiniteError, "are NaN"),
    ],
    ids=["a full disk", "a network of NaN"],
)
def test_what_stops_the_job(photos, tmp_path, monkeypatch, owner, name, error, expected, message):
    monkeypatch.setattr(owner, name, raising(error))
    with pytest.raises(expected, match=message):
        predict_files(red_predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {}


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_and_sizes_at_the_limits(photos, tmp_path):
    not_utf8 = os.fsdecode(b"caf\xe9.png")
    for name in (not_utf8, "ü" * 125 + ".png", "x" * 251 + ".png", "x" * 251 + ".bmp"):
        draw(photos / name)
    # Longer than a JPEG may be.
    Image.new("L", (66_000, 2)).save(photos / "long.png")
    report = predict_files(red_predictor(), [photos], tmp_path / "out")
    # Two keep their suffixes, for which there is no room; the rest is done.
    assert (report.written, [path.name[:5] for path, _ in report.failed]) == (6, ["xxxxx", "xxxxx"])
    assert (tmp_path / "out/masks" / not_utf8).is_file()
    with (
        Image.open(tmp_path / "out/masks/long.png") as mask,
        Image.open(tmp_path / "out/overlays/long.jpg") as overlay,
    ):
        assert (mask.size, overlay.size) == ((66_000, 2), (65_500, 2))
    assert predict_files(red_predictor(), [photos], tmp_path / "out").skipped == 6


def test_outputs_by_another_name_are_not_inputs(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    for written in (3, 0):
        assert predict_files(red_predictor(), [photos], tmp_path / "link/out").written == written


def test_a_file_as_out_and_a_model_without_a_file_are_refused(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another --out"):
        predict_files(red_predictor(), [photos], tmp_path / "file")
    with pytest.raises(UsageError, match=r"seenet\.load"):
        predict_files(red_predictor(info=None), [photos], tmp_path / "out")


def test_the_writer_runs_all_jobs_in_order_beside_the_block():
    done = []
    with background_writer() as later:
        for number in range(6):
            later(lambda number=number: (time.sleep(0.01), done.append(number)))
            assert len(done) >= number - QUEUED_JOBS
        assert len(done) < 6
    assert done == list(range(6))


def test_after_a_signal_the_running_job_is_finished_and_no_thread_stays():
    before, started, done = threading.active_count(), threading.Event(), []

    def job():
        started.set()
        time.sleep(0.05)
        done.append("finished")

    with suppress(KeyboardInterrupt), background_writer() as later:
        later(job)
        later(job)
        started.wait()
        raise KeyboardInterrupt
    assert done == ["finished"]
    assert threading.active_count() == before


def test_prefetch_reads_one_ahead_in_order_and_keeps_errors():
    started, seen = [], []

    def read(item):
        started.append(item)
        return 60 // item

    for item, value in prefetch(range(-2, 4), read):
        seen.append((item, type(value.exception()) if value.exception() else value.result()))
        time.sleep(0.02)
        assert max(started) <= item + 1
    assert seen == [(-2, -30), (-1, -60), (0, ZeroDivisionError), (1, 60), (2, 30), (3, 20)]
