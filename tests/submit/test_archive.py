"""Archives for the servers: what is in them, and what is refused before one is left."""

import io
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seenet.cli import main
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
from seenet.submit.check import check_submission, find_pictures
from seenet.submit.cityscapes import CITYSCAPES
from seenet.submit.voc import VOC, VOC_FOLDER

COMP6 = VOC_FOLDER.format(6)
FRAMES = ("berlin_000000_000019", "bad-honnef_000001_000019")


class TensNet(nn.Module):
    """The class of a pixel is its red value over 10, to the nearest."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.normalization = SimpleNamespace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.num_classes, self.pad_multiple = num_classes, 1

    def forward(self, images: Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False) -> Tensor:
        return -(images[:, :1] * 25.5 - torch.arange(self.num_classes)[:, None, None]).abs()


def predictor(labels: LabelSet) -> Predictor:
    return Predictor(TensNet(labels.num_classes), labels, device="cpu", info={"file": "tens.safetensors", "sha256": "0" * 64})


def voc_ids(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 21, size, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def grey(ids: np.ndarray) -> np.ndarray:
    """A picture in which TensNet sees these classes."""
    return np.repeat(ids[:, :, None] * 10, 3, axis=2)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three pictures of different sizes, and masks of them as `seenet predict` writes them."""
    for number, name in enumerate(("2008_000002", "2007_000001", "2011_123456")):
        ids = voc_ids(number, (5 + number, 8))
        save(tmp_path / "pictures" / f"{name}.png", grey(ids))
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(tmp_path / "masks" / f"{name}.png", ids, VOC21)
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for number, name in enumerate(FRAMES):
        ids = (np.arange(1024 * 2048, dtype=np.int64).reshape(1024, 2048) // 40_000 + number).astype(np.uint8) % 19
        save(tmp_path / "leftImg8bit" / "test" / name.split("_")[0] / f"{name}_leftImg8bit.png", np.zeros((1024, 2048), np.uint8))
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(tmp_path / "masks" / f"{name}_leftImg8bit.png", ids, CITYSCAPES19)
    return tmp_path


def pointwise(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


def tarred(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_voc_from_masks(voc: Path) -> None:
    out = voc / "out" / "voc.tar.gz"
    done = submit_masks(VOC, voc / "masks", voc / "pictures", out, folder=VOC_FOLDER.format(5))
    assert (done.path, done.count, done.against_pictures) == (out, 3, True)
    files = tarred(out)
    assert list(files) == [
        f"results/VOC2012/Segmentation/comp5_test_cls/{name}.png" for name in ("2007_000001", "2008_000002", "2011_123456")
    ]
    with Image.open(io.BytesIO(files[f"{VOC_FOLDER.format(5)}/2008_000002.png"])) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), voc_ids(0, (5, 8)))
        assert (image.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert list(out.parent.iterdir()) == [out]
    assert check_submission(out, voc / "pictures").count == 3
    with pytest.raises(CheckError, match=r"3 masks, expected 1456"):
        check_submission(out)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_the_same_files_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    files = [("b.png", b"two" * 999), ("a.png", b"one")]
    (tmp_path / "x").mkdir()
    write_archive(tmp_path / f"first{suffix}", suffix, files)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_archive(tmp_path / "x" / f"second{suffix}", suffix, iter(files))
    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / "x" / f"second{suffix}").read_bytes()


def test_a_network_of_the_users_own(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(voc / "own.safetensors", create_model(factory=f"{__name__}:pointwise", num_classes=21), VOC21)

    def call(kind: str, out: str, *more: str) -> tuple[int, str]:
        images = ["--images", str(voc / "pictures"), "--out", str(voc / out), "--device", "cpu"]
        with pytest.raises(SystemExit) as caught:
            main(["submit", kind, str(voc / "own.safetensors"), *images, *more])
        return int(caught.value.code or 0), capsys.readouterr().err

    for kind, out in (("voc", "a.tar.gz"), ("cityscapes", "a.zip")):
        code, err = call(kind, out)
        assert code == 2 and "repeat the name with --factory" in err
    trusted = ["--factory", f"{__name__}:pointwise"]
    code, err = call("voc", "a.tar.gz", *trusted)
    assert code == 0, err
    assert len(tarred(voc / "a.tar.gz")) == 3
    # Loaded too: what is refused now are its classes.
    code, err = call("cityscapes", "a.zip", *trusted)
    assert code == 4 and "knows 21 classes" in err


def test_voc_from_a_model_and_a_list(voc: Path) -> None:
    home = voc / "VOC2012"
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    (home / "ImageSets" / "Segmentation" / "test.txt").write_text("2008_000002\n2007_000001\n")
    for label, name in enumerate(("2008_000002", "2007_000001", "2011_123456")):
        save(home / "JPEGImages" / f"{name}.jpg", np.full((6, 9, 3), label * 10, np.uint8))
    out = voc / "voc.tar.gz"
    done = submit_model(VOC, predictor(VOC21), home / "ImageSets" / "Segmentation" / "test.txt", out, folder=COMP6)
    assert done.count == 2
    for name, label in (("2008_000002", 0), ("2007_000001", 1)):
        with Image.open(io.BytesIO(tarred(out)[f"{COMP6}/{name}.png"])) as image:
            assert (image.size, image.mode) == ((9, 6), "P")
            assert (np.asarray(image) == label).all()
    kept = predictions_folder(out, VOC)
    assert sorted(path.name for path in (kept / "masks").iterdir()) == ["2007_000001.png", "2008_000002.png"]
    # Again: predicted already, and the same archive.
    before = out.read_bytes()
    with pytest.raises(DataError, match="exists already; use --overwrite"):
        submit_model(VOC, predictor(VOC21), home / "ImageSets" / "Segmentation" / "test.txt", out, folder=COMP6)
    out.unlink()
    again = predictor(VOC21)
    again.stripes = lambda *_: pytest.fail("predicted again")  # type: ignore[method-assign, assignment]
    submit_model(VOC, again, home / "ImageSets" / "Segmentation" / "test.txt", out, folder=COMP6)
    assert out.read_bytes() == before


def test_cityscapes_from_masks_as_the_official_table_has_it(cityscapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = cityscapes / "cityscapes.zip"
    submit_masks(CITYSCAPES, cityscapes / "masks", cityscapes / "leftImg8bit", out)
    official = pytest.importorskip("cityscapesscripts.helpers.labels").trainId2label
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [f"{name}_labelIds.png" for name in sorted(FRAMES)]
        for name in FRAMES:
            with (
                Image.open(archive.open(f"{name}_labelIds.png")) as image,
                Image.open(cityscapes / "masks" / f"{name}_leftImg8bit.png") as mask,
            ):
                assert (image.mode, image.size) == ("L", (2048, 1024))
                ids, classes = np.asarray(image)[::7, ::7], np.asarray(mask)[::7, ::7]
                assert all(official[int(label)].id == int(ids[classes == label][0]) for label in np.unique(classes))
                assert len(np.unique(ids)) == len(np.unique(classes)) == 19
        archive.extractall(cityscapes / "results")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official_script

    monkeypatch.setenv("CITYSCAPES_RESULTS", str(cityscapes / "results"))
    for name in FRAMES:
        found = official_script.getPrediction(SimpleNamespace(predictionPath=None, predictionWalk=None), f"{name}_gtFine_labelIds.png")
        assert Path(found).name == f"{name}_labelIds.png"
    # The extracted files are masks of labelIds, and pack to the same archive.
    submit_masks(CITYSCAPES, cityscapes / "results", cityscapes / "leftImg8bit", cityscapes / "second.zip", stored=True)
    assert (cityscapes / "second.zip").read_bytes() == out.read_bytes()


def test_cityscapes_from_a_model(tmp_path: Path) -> None:
    ids = np.zeros((1024, 2048), np.uint8)
    ids[500:, 1000:] = 18
    save(tmp_path / "test" / "ulm" / "ulm_000000_000019_leftImg8bit.png", grey(ids))
    submit_model(CITYSCAPES, predictor(CITYSCAPES19), tmp_path / "test", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, Image.open(archive.open("ulm_000000_000019_labelIds.png")) as image:
        assert np.array_equal(np.asarray(image), np.where(ids == 18, 33, 7))


def refused(kind: type[SeenetError], message: str, *arguments: object, **options: object) -> None:
    """The error, in one line, and nothing left beside what was there."""
    out = arguments[3]
    assert isinstance(out, Path)
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=message) as caught:
        submit_masks(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda masks: (masks / "2008_000002.png").unlink(), CheckError, r"no mask of 2008_000002\.png \(2 of 3"),
        (lambda masks: save(masks / "2008_000009.png", voc_ids(0, (5, 8))), CheckError, r"2008_000009\.png: belongs to none"),
        (lambda masks: save(masks / "notes.png", voc_ids(0, (5, 8))), CheckError, r"notes\.png: belongs to none"),
        (lambda masks: save(masks / "sub" / "2008_000002.png", voc_ids(0, (5, 8))), CheckError, r"a second mask of 2008_000002"),
        (lambda masks: save(masks / "2008_000002.png", voc_ids(0, (8, 5))), CheckError, r"2008_000002\.png: 8 x 5 pixels, expected 5 x 8"),
        (lambda masks: save(masks / "2008_000002.png", np.full((5, 8), 21, np.uint8)), CheckError, r"2008_000002\.png: ids 21 are no cl"),
        (lambda masks: save(masks / "2008_000002.png", np.full((5, 8), 255, np.uint8)), CheckError, r"2008_000002\.png: ids 255 are no"),
        (lambda masks: save(masks / "2008_000002.png", np.zeros((5, 8, 3), np.uint8)), DataError, r"2008_000002\.png: a mask in colour"),
        (lambda masks: (masks / "2008_000002.png").write_bytes(b""), DataError, r"2008_000002\.png: an empty file"),
    ],
)  # fmt: skip
def test_wrong_masks_are_named_and_leave_no_archive(voc: Path, spoil: object, kind: type[SeenetError], message: str) -> None:
    spoil(voc / "masks")  # type: ignore[operator]
    refused(kind, message, VOC, voc / "masks", voc / "pictures", voc / "voc.tar.gz", folder=COMP6)


def test_wrong_ids_of_cityscapes(cityscapes: Path) -> None:
    arguments = (CITYSCAPES, cityscapes / "masks", cityscapes / "leftImg8bit", cityscapes / "a.zip")
    refused(CheckError, r"bad-honnef.*ids 0, 1, 2.*no classes of cityscapes19", *arguments, stored=True)
    save(cityscapes / "leftImg8bit" / "ulm_000000_000019_leftImg8bit.png", np.zeros((128, 256), np.uint8))
    refused(CheckError, r"ulm_000000_000019_leftImg8bit\.png: 128 x 256 pixels, expected 1024 x 2048, as all", *arguments)


def test_wrong_arguments(voc: Path) -> None:
    masks, pictures, out = voc / "masks", voc / "pictures", voc / "voc.tar.gz"
    refused(UsageError, r"voc takes \.tar\.gz", VOC, masks, pictures, voc / "voc.zip")
    refused(DataError, "no such folder", VOC, voc / "none", pictures, out)
    refused(DataError, "no such list", VOC, masks, voc / "none", out)
    refused(DataError, r"not named as cityscapes's pictures", CITYSCAPES, masks, pictures, voc / "a.zip")
    save(voc / "large" / "2008_000002.png", np.zeros((400, 501), np.uint8))
    refused(CheckError, r"2008_000002\.png: 400 x 501 pixels, expected at most 500 x 500", VOC, masks, voc / "large", out)
    out.write_text("mine")
    refused(DataError, "exists already", VOC, masks, pictures, out)
    assert submit_masks(VOC, masks, pictures, out, folder=COMP6, overwrite=True).count == 3
    with pytest.raises(DataError, match=r"tens\.safetensors: knows 19 classes"):
        submit_model(VOC, predictor(CITYSCAPES19), pictures, voc / "b.tar.gz")
    (pictures / "2008_000002.png").unlink()
    broken = pictures / "2008_000002.jpg"
    save(broken, np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    broken.write_bytes(broken.read_bytes()[:9_000])
    with pytest.raises(PartialError, match=r"2008_000002\.jpg"):
        submit_model(VOC, predictor(VOC21), pictures, voc / "b.tar.gz")
    assert not (voc / "b.tar.gz").exists()


def test_what_was_packed_wrongly_is_not_left(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the archive does not lean on that of the masks."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(stream, "PNG")
    monkeypatch.setattr(archives, "_encoded", lambda *_: stream.getvalue())
    message = r"voc\.tar\.gz: results/.*/2007_000001\.png: mode L, expected P"
    refused(CheckError, message, VOC, voc / "masks", voc / "pictures", voc / "voc.tar.gz", folder=COMP6)


def test_real_pictures_by_their_list(shared: Path, tmp_path: Path) -> None:
    home = shared / "data" / "VOCdevkit" / "VOC2012"
    val = home / "ImageSets" / "Segmentation" / "val.txt"
    out = tmp_path / "voc.tar.gz"
    for name in val.read_text().split():
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / f"{name}.png").symlink_to(home / "SegmentationClass" / f"{name}.png")
    refused(CheckError, "2007_000636.*ids 255", VOC, tmp_path / "masks", val, out, folder=COMP6)
    for path in (tmp_path / "masks").iterdir():
        ids = read_ids(path)
        path.unlink()
        write_mask(path, np.where(ids == 255, 0, ids), VOC21)
    assert submit_masks(VOC, tmp_path / "masks", val, out, folder=COMP6).count == 60
    with pytest.raises(CheckError, match=r"2007_000636\.png: none of the 140 pictures"):
        check_submission(out, val.with_name("train.txt"))


def test_lists_of_pictures(voc: Path) -> None:
    (voc / "list.txt").write_text("pictures/2008_000002.png\npictures/2007_000001.png\n")
    assert list(find_pictures(voc / "list.txt", VOC)) == ["2007_000001", "2008_000002"]
    (voc / "list.txt").write_text("pictures/none.png\n")
    with pytest.raises(DataError, match=r"none\.png: no such picture, though .*list\.txt lists it"):
        find_pictures(voc / "list.txt", VOC)
    save(voc / "pictures" / "more" / "2008_000002.jpg", np.zeros((5, 5), np.uint8))
    with pytest.raises(UsageError, match="a second picture of 2008_000002"):
        find_pictures(voc / "pictures", VOC)
    (voc / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures found"):
        find_pictures(voc / "empty", VOC)
