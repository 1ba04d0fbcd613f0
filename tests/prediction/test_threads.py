"""A predictor in a process that does other things: threads, copies, pickles, forks (bar P7)."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seenet
from seenet.core.errors import DataError
from seenet.prediction.base import BasePredictor
from seenet.prediction.predictor import Predictor
from seenet.prediction.tiles import Tiling
from tests.model.fast.networks import network
from tests.prediction.bundles.red import write_red
from tests.prediction.doubles import LABELS, TinyNet, picture

THREADS = 8
SIZES = ((40, 56), (64, 33), (40, 56), (150, 140))


MODULE = nn.Module.__call__, nn.Module.__getattr__


def at_once(*works: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Run each in a thread of its own, all of them from the same moment on.

    Meanwhile torch's own modules must stay as they are: other threads use them too.
    """
    barrier = threading.Barrier(len(works))
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(lambda work=work: (barrier.wait(), work())[1]) for work in works]
        while not all(future.done() for future in futures):
            assert (nn.Module.__call__, nn.Module.__getattr__) == MODULE
            time.sleep(0.0001)
        return [future.result() for future in futures]


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool((found == expected).mean() >= 0.999)


def test_predictors_made_and_first_called_at_once() -> None:
    image = picture(*SIZES[0])
    expected = Predictor(network(), LABELS, device="cpu").mask(image)
    works = [
        lambda model=model: Predictor(model, LABELS, device="cpu").mask(image)
        for model in [network() for _ in range(THREADS)]
    ]
    assert all(same(found, expected) for found in at_once(*works))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"flip": True, "scales": (0.75, 1.0)}, {"tiling": Tiling(tile=128, margin=32)}]
)
def test_one_predictor_in_many_threads(warm: bool, options: dict[str, object]) -> None:
    pictures = [picture(*SIZES[number % len(SIZES)]) for number in range(THREADS)]
    model = network()
    alone, shared = (Predictor(model, LABELS, device="cpu", **options) for _ in range(2))
    # Runs the same network whole, while others may run it in tiles.
    beside = Predictor(model, LABELS, device="cpu")
    expected = [*map(alone.mask, pictures), beside.mask(pictures[3])]
    for _ in range(2 * warm):
        shared.mask(pictures[0])
    for _ in range(3):
        works = [lambda image=image: shared.mask(image) for image in pictures]
        found = at_once(*works, lambda: beside.mask(pictures[3]))
        assert all(map(same, found, expected))


def test_a_network_in_training_mode_in_many_threads() -> None:
    """A network without a faster form: its modes change during the passes, and are restored."""
    model = TinyNet().train()
    model.norm.eval()
    predictor, image = Predictor(model, LABELS, device="cpu"), picture(64, 64)
    expected, statistics = predictor.mask(image), model.norm.running_mean.clone()
    for _ in range(5):
        found = at_once(*[lambda: predictor.mask(image)] * THREADS)
        assert all(same(mask, expected) for mask in found)
    assert model.training and model.conv.training and not model.norm.training
    assert torch.equal(model.norm.running_mean, statistics)


def test_weights_that_change_between_calls_in_many_threads() -> None:
    model, image = network("baseline"), picture(40, 56)
    predictor = Predictor(model, LABELS, device="cpu")
    before = predictor.mask(image)
    with torch.no_grad():
        next(model.head.parameters()).mul_(-3)
    expected = Predictor(copy.deepcopy(model), LABELS, device="cpu").mask(image)
    assert not np.array_equal(before, expected)
    found = at_once(*[lambda: predictor.mask(image)] * THREADS)
    assert all(same(mask, expected) for mask in found)


@pytest.fixture(scope="module")
def used() -> Predictor:
    """After two calls at one size, from which on the weights lie in oneDNN's order."""
    predictor = Predictor(network(), LABELS, device="cpu", flip=True)
    for _ in range(3):
        predictor.mask(picture(*SIZES[0]))
    return predictor


def pickled(value: BasePredictor) -> BasePredictor:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickled])
def test_a_used_predictor_is_copied(used: Predictor, copied: Callable[..., Predictor]) -> None:
    other = copied(used)
    for size in SIZES:
        assert same(other.mask(picture(*size)), used.mask(picture(*size)))
    assert other.settings == used.settings


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_an_exported_model_is_copied(tmp_path: Path, copied: Callable[..., BasePredictor]) -> None:
    net, image = seenet.load(write_red(tmp_path / "red.onnx")), picture(20, 30)
    other = copied(net)
    found = at_once(*[lambda: other.mask(image)] * THREADS)
    assert all(np.array_equal(mask, net.mask(image)) for mask in found)


def test_an_exported_model_that_changed_is_not_taken_for_its_copy(tmp_path: Path) -> None:
    path = write_red(tmp_path / "red.onnx")
    stored = pickle.dumps(seenet.load(path))
    write_red(path, text=seenet.load(path).card.text().replace('"0.1.0"', '"0.1.1"'))
    with pytest.raises(DataError):
        pickle.loads(stored)


def _mask(predictor: BasePredictor, image: np.ndarray) -> np.ndarray:
    return predictor.mask(image)


@pytest.mark.slow
def test_spawned_processes(used: Predictor, tmp_path: Path) -> None:
    net, image = seenet.load(write_red(tmp_path / "red.onnx")), picture(*SIZES[0])
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_mask, [used, net], [image, image]))
    assert same(found[0], used.mask(image))
    assert np.array_equal(found[1], net.mask(image))


FORKED = """
import os, sys
import numpy as np, torch
import seenet
net = seenet.load(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
torch.set_num_threads(2)
expected = net.mask(image)
if child := os.fork():
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
try:
    same = (net.mask(image) == expected).mean() > 0.999
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
    os._exit(3)
os._exit(0 if same else 4)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [("eager", 0), ("onnx", 3)])
def test_a_fork_after_a_prediction_answers_or_says_why(
    tmp_path: Path, kind: str, code: int
) -> None:
    model = "camvid-lite0" if kind == "eager" else str(write_red(tmp_path / "red.onnx"))
    command = [sys.executable, "-c", FORKED, model]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == code, done.stderr
    assert "fork" in done.stderr
