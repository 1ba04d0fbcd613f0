"""`seenet demo`: the whole path on what comes with the package, real photographs first."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
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
from seenet.prediction.colours import blend
from seenet.prediction.loading import load
from seenet.prediction.manifest import JOURNALS, NAME
from seenet.report.gallery import GalleryRow, write_gallery
from seenet.report.html import percent
from seenet.report.page import write_report
from seenet.training.trainer import train

log = logging.getLogger("seenet")

MODEL, RECIPE = "camvid-lite0", "shapes"
HELD_OUT = "test"
"""Split of `shapes` that neither training nor the choice of the best step looks at."""
SCENES = 6


@dataclass(frozen=True)
class DemoReport:
    """The page to open, and the scores of the network that was trained on the way."""

    page: Path
    result: dict[str, Any]


def run_demo(out: Path, *, device: str = "auto", overrides: list[str] | None = None) -> DemoReport:
    """Segment the bundled photographs into OUT/photos, then train, evaluate and run `shapes` in OUT/shapes; both as pages.

    `overrides` are settings of the recipe. Interrupted, a second call goes on. Raises what the single commands raise; DataError where OUT
    holds anything else than a demo.
    """
    page, run = out / "index.html", out / "shapes"
    _check_own(out)
    log.info("[1/5] the bundled model segments the bundled photographs")
    predictor = load(MODEL, device)
    photographs = bundled_photographs()
    predict_files(predictor, photographs, out / "photos", overwrite=True)
    _write_page(
        page, predictor, photographs, out / "photos", "Training of a network on drawn scenes goes on; this page will link to it.", []
    )
    log.info("open %s for a first look; meanwhile:", page)

    log.info("[2/5] training on drawn scenes")
    recipe = load_recipe(RECIPE, overrides)
    train(recipe, run, resume=(run / "recipe.yaml").exists(), device=device)
    log.info("[3/5] evaluation on scenes never seen")
    result = run_evaluation(run, split=HELD_OUT, out=out / "eval", overwrite=True, device=device).result

    log.info("[4/5] prediction of %d drawn scenes", SCENES)
    predict_files(load(run, device), [_draw_scenes(out / "scenes", recipe.data.size)], out / "scenes-predicted", overwrite=True)
    log.info("[5/5] report")
    report = write_report(run, device=device)
    text = (
        f"The network trained by this demo on drawn scenes reaches {percent(result['miou'])} mIoU on {result['images']} scenes never seen."
    )
    links = [("Its report, with the scores by which its best step was chosen", report.relative_to(out).as_posix())]
    _write_page(page, predictor, photographs, out / "photos", text, links)
    return DemoReport(page, result)


def _check_own(out: Path) -> None:
    """What a demo writes first stands in its folder of photographs."""
    others = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if others and not any(path for name in (NAME, JOURNALS) for path in (out / "photos").glob(name)):
        raise DataError(f"{out}: holds {others[0]} and is no demo's folder; give a new or empty one with --out")


def bundled_photographs() -> list[Path]:
    """Street photographs under free licences (photos/LICENCES.tsv), by name."""
    return sorted(Path(str(resources.files("seenet") / "photos")).glob("*.jpg"))


def _draw_scenes(folder: Path, size: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    split = ShapesSplit(HELD_OUT, SCENES, size)
    for index in range(SCENES):
        Image.fromarray(split.image(index)).save(folder / f"{split.key(index)}.png")
    return folder


def _write_page(page: Path, predictor: BasePredictor, photographs: list[Path], out: Path, text: str, links: list[tuple[str, str]]) -> None:
    def rows() -> Iterator[GalleryRow]:
        for path in photographs:
            image, mask = read_image(path), read_ids(out / "masks" / f"{path.stem}.png")
            yield GalleryRow(path.name, [("photograph", image), ("segmented", blend(image, mask, predictor.labels))], mask)

    intro = (
        f"{len(photographs)} photographs that {MODEL} has never seen, all that come with the package: it was trained on one city's "
        f"streets, mostly by day, so night, fisheye and close views show its limits. {text}"
    )
    write_gallery(page, "SeENet: street photographs", intro, rows(), predictor.labels, links)
