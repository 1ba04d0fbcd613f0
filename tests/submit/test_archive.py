"""Archives for the servers: their content, and masks that are refused before one is left."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from seenet.core.errors import CheckError, DataError, PartialError, SeenetError, UsageError
from seenet.core.images import read_ids, write_mask
from seenet.core.labels import LabelSet
from seenet.data.cityscapes import CITYSCAPES19
from seenet.data.voc import VOC21
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.predictor import Predictor
from seenet.submit import archive as archives
from seenet.submit.archive import predictions_folder, submit_masks, submit_model, write_archive
from seenet.submit.benchmark import CITYSCAPES, VOC, VOC_FOLDER
from seenet.submit.check import find_pictures
from tests.cli.commands import run
from tests.evaluation.doubles import FirstChannel

COMP6 = VOC_FOLDER.format(6)
FRAMES = ("bad-honnef_000001_000019", "berlin_000000_000019")
NAMES = ("2007_000001", "2008_000002", "2011_123456")


def predictor(labels: LabelSet) -> Predictor:
    """The class of a pixel is the value of its first channel."""
    info = {"file": "first.safetensors", "sha256": "0" * 64}
    return Predictor(FirstChannel(labels.num_classes), labels, device="cpu", info=info)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=100)


def save_picture(path: Path, ids: np.ndarray) -> None:
    """Save a picture of these classes."""
    save(path, np.repeat(ids[:, :, None], 3, axis=2))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three pictures of different sizes, and masks of them as `seenet predict` writes them."""
    (tmp_path / "masks").mkdir()
    for number, name in enumerate(NAMES):
        ids = np.random.default_rng(number).integers(0, 21, (5 + number, 8), dtype=np.uint8)
        save_picture(tmp_path / "pictures" / f"{name}.png", ids)
        write_mask(tmp_path / "masks" / f"{name}.png", ids, VOC21)
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    for number, name in enumerate(FRAMES):
        ids = (np.arange(1024 * 2048).reshape(1024, 2048) // 40_000 + number) % 19
        picture = np.zeros((1024, 2048), np.uint8)
        save(tmp_path / "pictures" / name.split("_")[0] / f"{name}_leftImg8bit.png", picture)
        write_mask(tmp_path / "masks" / f"{name}_leftImg8bit.png", ids, CITYSCAPES19)
    return tmp_path


def tar_files(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_voc_from_masks(
    voc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(voc)
    masks, images = ["--masks", "masks"], ["--images", "pictures"]
    packed = run(capsys, "submit", "voc", *masks, *images, "--competition", "5")
    out = Path("submissions/voc-comp5.tar.gz")
    assert packed[:2] == (
        0,
        f"{out}: 3 masks for voc, all correct (names and sizes are the pictures')\n",
    )
    files = tar_files(out)
    assert list(files) == [
        f"results/VOC2012/Segmentation/comp5_test_cls/{name}.png" for name in NAMES
    ]
    for name, content in zip(NAMES, files.values(), strict=True):
        with Image.open(io.BytesIO(content)) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), read_ids(voc / "masks" / f"{name}.png"))
            assert (image.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert list(out.parent.iterdir()) == [out]
    assert run(capsys, "submit", "check", str(out), *images)[:2] == packed[:2]
    code, _, err = run(capsys, "submit", "check", str(out))
    assert code == 6 and "3 masks, expected 1456" in err


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_the_same_files_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    files = [("b.png", b"two" * 999), ("a.png", b"one")]
    first, second = (tmp_path / f"{number}{suffix}" for number in (1, 2))
    write_archive(first, suffix, files)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_archive(second, suffix, iter(files))
    assert first.read_bytes() == second.read_bytes()


def pointwise(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


def test_a_network_of_the_users_own(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, factory = voc / "own.safetensors", f"{__name__}:pointwise"
    save_model(model, create_model(factory=factory, num_classes=21), VOC21)
    for kind, out, options, code, message in (
        ("voc", "a.tar.gz", [], 2, "repeat the name with --factory"),
        ("cityscapes", "a.zip", [], 2, "repeat the name with --factory"),
        ("voc", "a.tar.gz", ["--factory", factory], 0, ""),
        ("cityscapes", "a.zip", ["--factory", factory], 4, "knows 21 classes"),
    ):
        line = ["submit", kind, str(model), "--images", str(voc / "pictures"), "--device", "cpu"]
        found, _, err = run(capsys, *line, "--out", str(voc / out), *options)
        assert found == code and message in err
    assert len(tar_files(voc / "a.tar.gz")) == 3


def test_voc_from_a_model_and_a_list(voc: Path) -> None:
    home, out = voc / "VOC2012", voc / "voc.tar.gz"
    images = home / "ImageSets" / "Segmentation" / "test.txt"
    images.parent.mkdir(parents=True)
    images.write_text("2008_000002\n2007_000001\n")
    for label, name in enumerate(NAMES):
        save_picture(home / "JPEGImages" / f"{name}.jpg", np.full((6, 9), label, np.uint8))
    assert submit_model(VOC, predictor(VOC21), images, out, folder=COMP6).count == 2
    for label, content in enumerate(tar_files(out).values()):
        with Image.open(io.BytesIO(content)) as image:
            assert (image.size, image.mode) == ((9, 6), "P")
            assert (np.asarray(image) == label).all()
    masks = predictions_folder(out, VOC) / "masks"
    assert sorted(path.stem for path in masks.iterdir()) == list(NAMES[:2])
    # Again: predicted already, and the same archive.
    before = out.read_bytes()
    with pytest.raises(DataError, match="exists already; use --overwrite"):
        submit_model(VOC, predictor(VOC21), images, out, folder=COMP6)
    out.unlink()
    again = predictor(VOC21)
    again.row_chunks = lambda *_: pytest.fail("predicted again")  # type: ignore[method-assign, assignment]
    submit_model(VOC, again, images, out, folder=COMP6)
    assert out.read_bytes() == before


def test_cityscapes_has_the_ids_of_the_official_table(cityscapes: Path) -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels").trainId2label
    out, pictures, results = (cityscapes / name for name in ("a.zip", "pictures", "results"))
    submit_masks(CITYSCAPES, cityscapes / "masks", pictures, out)
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [f"{name}_labelIds.png" for name in FRAMES]
        archive.extractall(results)
    table = np.array([official[train_id].id for train_id in range(19)])
    for name in FRAMES:
        with Image.open(results / f"{name}_labelIds.png") as image:
            assert (image.mode, image.size) == ("L", (2048, 1024))
            classes = read_ids(cityscapes / "masks" / f"{name}_leftImg8bit.png")
            assert np.array_equal(np.asarray(image), table[classes])
    # The extracted files are masks of labelIds, and pack to the same archive.
    submit_masks(CITYSCAPES, results, pictures, cityscapes / "b.zip", stored=True)
    assert (cityscapes / "b.zip").read_bytes() == out.read_bytes()


def refused(kind: type[SeenetError], message: str, out: Path, *arguments: object) -> None:
    """Expect an error and no file beside those that exist."""
    before = sorted(out.parent.iterdir())
    options = {"folder": COMP6} if arguments[0] is VOC else {"stored": True}
    with pytest.raises(kind, match=message):
        submit_masks(*arguments, out, **options)  # type: ignore[arg-type]
    assert sorted(out.parent.iterdir()) == before


SIZE = (6, 8)


@pytest.mark.parametrize(
    ("name", "ids", "kind", "message"),
    [
        ("2008_000002", None, CheckError, r"no mask of 2008_000002\.png \(2 of 3"),
        ("2008_000009", np.zeros(SIZE), CheckError, r"2008_000009\.png: belongs to none"),
        ("notes", np.zeros(SIZE), CheckError, r"notes\.png: belongs to none"),
        ("sub/2008_000002", np.zeros(SIZE), CheckError, r"a second mask of 2008_000002"),
        ("2008_000002", np.zeros((8, 6)), CheckError, r"02\.png: 8 x 6 pixels, expected 6 x 8"),
        ("2008_000002", np.full(SIZE, 21), CheckError, r"2008_000002\.png: ids 21 are no classes"),
        ("2008_000002", np.full(SIZE, 255), CheckError, r"2008_000002\.png: ids 255 are no"),
        ("2008_000002", np.zeros((*SIZE, 3)), DataError, r"2008_000002\.png: a mask in colour"),
    ],
)
def test_a_wrong_mask_is_named_and_leaves_no_archive(
    voc: Path, name: str, ids: np.ndarray | None, kind: type[SeenetError], message: str
) -> None:
    path = voc / "masks" / f"{name}.png"
    if ids is None:
        path.unlink()
    else:
        save(path, ids.astype(np.uint8))
    refused(kind, message, voc / "a.tar.gz", VOC, voc / "masks", voc / "pictures")


def test_wrong_ids_and_sizes_of_cityscapes(cityscapes: Path) -> None:
    arguments = cityscapes / "a.zip", CITYSCAPES, cityscapes / "masks", cityscapes / "pictures"
    refused(CheckError, r"bad-honnef.*ids 0, 1, 2.*no classes of cityscapes19", *arguments)
    small = cityscapes / "pictures" / "ulm_000000_000019_leftImg8bit.png"
    save(small, np.zeros((128, 256), np.uint8))
    refused(CheckError, r"ulm_.*\.png: 128 x 256 pixels, expected 1024 x 2048", *arguments)


def test_wrong_arguments(voc: Path) -> None:
    masks, pictures, out = voc / "masks", voc / "pictures", voc / "voc.tar.gz"
    refused(UsageError, r"voc takes \.tar\.gz", voc / "voc.zip", VOC, masks, pictures)
    refused(DataError, "no such folder", out, VOC, voc / "none", pictures)
    refused(DataError, "no such list", out, VOC, masks, voc / "none")
    refused(DataError, "not named as cityscapes's", voc / "a.zip", CITYSCAPES, masks, pictures)
    save(voc / "large" / "2008_000002.png", np.zeros((400, 501), np.uint8))
    refused(
        CheckError, "400 x 501 pixels, expected at most 500 x 5", out, VOC, masks, voc / "large"
    )
    out.write_text("mine")
    refused(DataError, "exists already", out, VOC, masks, pictures)
    assert submit_masks(VOC, masks, pictures, out, folder=COMP6, overwrite=True).count == 3


def test_a_model_or_picture_that_does_not_fit(voc: Path) -> None:
    pictures, out = voc / "pictures", voc / "b.tar.gz"
    with pytest.raises(DataError, match=r"first\.safetensors: knows 19 classes"):
        submit_model(VOC, predictor(CITYSCAPES19), pictures, out)
    broken = pictures / "2012_000002.jpg"
    save(broken, np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    broken.write_bytes(broken.read_bytes()[:9_000])
    with pytest.raises(PartialError, match=r"2012_000002\.jpg"):
        submit_model(VOC, predictor(VOC21), pictures, out)
    assert not out.exists()


def test_what_was_packed_wrongly_is_not_left(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the archive does not depend on that of the masks."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(stream, "PNG")
    monkeypatch.setattr(archives, "_encode", lambda *_: stream.getvalue())
    message = r"a\.tar\.gz: results/.*/2007_000001\.png: mode L, expected P"
    refused(CheckError, message, voc / "a.tar.gz", VOC, voc / "masks", voc / "pictures")


def test_lists_of_pictures(voc: Path) -> None:
    listed = voc / "list.txt"
    listed.write_text("pictures/2008_000002.png\npictures/2007_000001.png\n")
    assert list(find_pictures(listed, VOC)) == ["2007_000001", "2008_000002"]
    listed.write_text("pictures/none.png\n")
    save(voc / "pictures" / "more" / "2008_000002.jpg", np.zeros((5, 5), np.uint8))
    (voc / "empty").mkdir()
    for images, error, message in (
        (listed, DataError, r"none\.png: no such picture, though .*list\.txt lists it"),
        (voc / "pictures", UsageError, "a second picture of 2008_000002"),
        (voc / "empty", DataError, "no pictures found"),
    ):
        with pytest.raises(error, match=message):
            find_pictures(images, VOC)
