"""A predictor in a process that does other things: threads, copies, pickles, forks."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seenet
from seenet.core.errors import DataError, UsageError
from seenet.prediction.base import BasePredictor
from seenet.prediction.predictor import Predictor
from seenet.prediction.tiles import Tiling
from tests.model.fast.networks import network
from tests.prediction.bundles.red import write_red
from tests.prediction.doubles import LABELS, TinyNet

THREADS = 8
SIZES = ((40, 56), (64, 33), (40, 56), (150, 140))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


@contextmanager
def foreign_network() -> Iterator[None]:
    """Another network answers in another thread all the while, always the same; afterwards torch's modules are called as before."""
    call, getattribute = nn.Module.__call__, nn.Module.__getattr__
    net, x, ended, wrong = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4), threading.Event(), []
    expected = net(x)

    def work() -> None:
        while not ended.is_set():
            same = nn.Module.__call__ is call and nn.Module.__getattr__ is getattribute and torch.equal(net(x), expected)
            if not same:
                wrong.append("torch's own modules were replaced while predictors were made or called")
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not wrong
    assert nn.Module.__call__ is call


def at_once(*works: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Run each in a thread of its own, all of them from the same moment on."""
    barrier = threading.Barrier(len(works))

    def waited(work: Callable[[], np.ndarray]) -> np.ndarray:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(waited, works))


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool((found == expected).mean() >= 0.999)


def test_predictors_made_and_first_called_at_once() -> None:
    image = picture(*SIZES[0])
    expected = Predictor(network(), LABELS, device="cpu").mask(image)
    models = [network() for _ in range(THREADS)]
    works = [lambda model=model: Predictor(model, LABELS, device="cpu").mask(image) for model in models]
    with foreign_network():
        assert all(same(found, expected) for found in at_once(*works))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("how", [{}, {"flip": True, "scales": (0.75, 1.0)}, {"tiling": Tiling(tile=128, margin=32)}])
def test_one_predictor_in_many_threads(warm: bool, how: dict[str, object]) -> None:
    pictures = [picture(*SIZES[number % len(SIZES)]) for number in range(THREADS)]
    model = network()
    alone = Predictor(model, LABELS, device="cpu", **how)
    expected = [alone.mask(image) for image in pictures]
    predictor = Predictor(model, LABELS, device="cpu", **how)
    if warm:
        for _ in range(2):
            predictor.mask(pictures[0])
    with foreign_network():
        for _ in range(3):
            found = at_once(*(lambda image=image: predictor.mask(image) for image in pictures))
            assert all(map(same, found, expected))


def test_one_network_whole_and_in_tiles_at_once() -> None:
    model, image = network(), picture(150, 140)
    whole = Predictor(model, LABELS, device="cpu")
    tiled = Predictor(model, LABELS, device="cpu", tiling=Tiling(tile=128, margin=32))
    expected = [whole.mask(image), tiled.mask(image)]
    found = at_once(*[lambda: whole.mask(image), lambda: tiled.mask(image)] * 4)
    assert all(map(same, found, expected * 4))


def test_a_network_in_training_mode_in_many_threads() -> None:
    """One without a twin: its modes change for the time of the passes, and come back when the last of them has ended."""
    model = TinyNet().train()
    model.norm.eval()
    predictor, image = Predictor(model, LABELS, device="cpu"), picture(64, 64)
    expected, statistics = predictor.mask(image), model.norm.running_mean.clone()
    for _ in range(5):
        assert all(same(found, expected) for found in at_once(*[lambda: predictor.mask(image)] * THREADS))
    assert model.training and model.conv.training and not model.norm.training
    assert torch.equal(model.norm.running_mean, statistics)


def test_weights_that_change_between_calls_in_many_threads() -> None:
    model, image = network("baseline"), picture(40, 56)
    predictor = Predictor(model, LABELS, device="cpu")
    before = predictor.mask(image)
    with torch.no_grad():
        model.head.branches[0].weight.mul_(-3) if hasattr(model.head, "branches") else next(model.head.parameters()).mul_(-3)
    expected = Predictor(copy.deepcopy(model), LABELS, device="cpu").mask(image)
    assert not np.array_equal(before, expected)
    assert all(same(found, expected) for found in at_once(*[lambda: predictor.mask(image)] * THREADS))


@pytest.fixture(scope="module")
def used() -> Predictor:
    """After two calls at one size, from which on the weights lie in oneDNN's order."""
    predictor = Predictor(network(), LABELS, device="cpu", flip=True)
    for _ in range(3):
        predictor.mask(picture(*SIZES[0]))
    return predictor


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_used_predictor_is_copied(used: Predictor, copied: Callable[[Predictor], Predictor]) -> None:
    other = copied(used)
    for size in SIZES:
        assert same(other.mask(picture(*size)), used.mask(picture(*size)))
    assert other.settings == used.settings


def test_a_used_predictor_goes_through_joblib(used: Predictor, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(used, tmp_path / "predictor")
    assert same(joblib.load(tmp_path / "predictor").mask(picture(*SIZES[0])), used.mask(picture(*SIZES[0])))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_an_exported_model_is_copied(tmp_path: Path, copied: Callable[[BasePredictor], BasePredictor]) -> None:
    net = seenet.load(write_red(tmp_path / "red.onnx"))
    image = picture(20, 30)
    expected = net.mask(image)
    other = copied(net)
    assert np.array_equal(other.mask(image), expected)
    assert all(np.array_equal(found, expected) for found in at_once(*[lambda: other.mask(image)] * THREADS))


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
@pytest.mark.parametrize("kind", ["eager", "onnx"])
def test_a_fork_after_a_prediction_answers_or_says_why(tmp_path: Path, kind: str) -> None:
    model = "camvid-lite0" if kind == "eager" else str(write_red(tmp_path / "red.onnx"))
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORKED, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == (0 if kind == "eager" else 3), done.stderr
    assert "fork" in done.stderr
    if kind == "onnx":
        assert done.stderr.startswith(UsageError.__name__)
