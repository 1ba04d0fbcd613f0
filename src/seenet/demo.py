"""`seenet demo`: segment the bundled photographs, then train, evaluate and run a small network."""

import logging
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_ids, read_image
from seenet.core.recipe_files import load_recipe
from seenet.data.shapes import ShapesSplit
from seenet.evaluation.run import run_evaluation
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import predict_files
from seenet.prediction.loading import load
from seenet.prediction.manifest import JOURNALS, NAME
from seenet.prediction.result import blend
from seenet.report.gallery import GalleryRow, write_gallery
from seenet.report.html import percent
from seenet.report.page import write_report
from seenet.training.trainer import train

log = logging.getLogger("seenet")

MODEL, RECIPE = "camvid-lite0", "shapes"
HELD_OUT = "test"
"""Split of `shapes` that is used neither for training nor for choosing the best step."""
SCENES = 6


def run_demo(
    out: Path, *, device: str = "auto", overrides: list[str] | None = None
) -> dict[str, Any]:
    """Segment the photographs into OUT/photos, then train, evaluate and run `shapes` in OUT/shapes.

    OUT/index.html shows the photographs and links to the report of the network. A second call
    continues an interrupted one. Returns the result of the evaluation.

    Args:
        overrides: settings of the recipe.

    Raises:
        DataError: OUT holds something else than a demo; and errors of the single steps.
    """
    page, run = out / "index.html", out / "shapes"
    _check_folder(out)
    log.info("[1/5] segmenting the bundled photographs with the bundled model")
    predictor = load(MODEL, device)
    photographs = bundled_photographs()
    predict_files(predictor, photographs, out / "photos", overwrite=True)
    text = "A network is being trained on drawn scenes; this page will link to its report."
    _write_page(page, predictor, photographs, out / "photos", text, [])
    log.info("open %s for a first look", page)

    log.info("[2/5] training on drawn scenes")
    recipe = load_recipe(RECIPE, overrides)
    train(recipe, run, resume=(run / "recipe.yaml").exists(), device=device)
    log.info("[3/5] evaluating on scenes not used for training")
    result = run_evaluation(
        run, split=HELD_OUT, out=out / "eval", overwrite=True, device=device
    ).result

    log.info("[4/5] predicting %d drawn scenes", SCENES)
    _draw_scenes(out / "scenes", recipe.data.size)
    predict_files(load(run, device), [out / "scenes"], out / "scenes-predicted", overwrite=True)
    log.info("[5/5] writing the report")
    address = write_report(run, device=device).relative_to(out).as_posix()
    text = (
        f"The network trained by this demo on drawn scenes reaches {percent(result['miou'])} mIoU "
        f"on {result['images']} scenes not used for training."
    )
    links = [("Its report, with the scores that selected its best step", address)]
    _write_page(page, predictor, photographs, out / "photos", text, links)
    return result


def _check_folder(out: Path) -> None:
    """Raise DataError where the folder has content but no manifest of the demo's first step."""
    others = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    manifests = (path for name in (NAME, JOURNALS) for path in (out / "photos").glob(name))
    if others and not any(manifests):
        raise DataError(
            f"{out}: holds {others[0]} and is not the folder of a demo; "
            "give a new or empty one with --out"
        )


def bundled_photographs() -> list[Path]:
    """List the bundled street photographs by name; photos/LICENCES.tsv has their licences."""
    return sorted(Path(str(resources.files("seenet") / "photos")).glob("*.jpg"))


def _draw_scenes(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    split = ShapesSplit(HELD_OUT, SCENES, size)
    for index in range(SCENES):
        Image.fromarray(split.image(index)).save(folder / f"{split.key(index)}.png")


def _write_page(
    page: Path,
    predictor: BasePredictor,
    photographs: list[Path],
    out: Path,
    text: str,
    links: list[tuple[str, str]],
) -> None:
    def rows() -> Iterator[GalleryRow]:
        for path in photographs:
            image, mask = read_image(path), read_ids(out / "masks" / f"{path.stem}.png")
            views = [("photograph", image), ("segmented", blend(image, mask, predictor.labels))]
            yield GalleryRow(path.name, views, mask)

    intro = (
        f"{len(photographs)} photographs that {MODEL} was not trained on, all that are bundled "
        "with the package. The model was trained on the streets of one city, mostly by day, so "
        f"night, fisheye and close views show its limits. {text}"
    )
    write_gallery(page, "SeENet: street photographs", intro, rows(), predictor.labels, links)
