"""seenet submit"""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Pack predictions for the servers of VOC and Cityscapes, and check such archives.",
)

Model = Annotated[str | None, typer.Argument(help="Run folder, .safetensors file or bundled name; none with --masks.")]
Images = Annotated[Path, typer.Option(help="Folder of the test pictures, or a list of them (such as ImageSets/Segmentation/test.txt).")]
Masks = Annotated[Path | None, typer.Option(help="Pack the masks of this folder instead of predicting.")]
Scales = Annotated[str, typer.Option(help="Factors whose probabilities are averaged, such as 0.5,0.75,1,1.25,1.5,1.75.")]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture.")]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Number format of the network.")]
Factory = Annotated[str | None, typer.Option(help="Of a model made by model.factory: package.module:callable, again.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the archive, and predictions that were made otherwise.")]


@app.command()
def voc(
    model: Model = None,
    *,
    images: Images,
    masks: Masks = None,
    competition: Annotated[
        Literal["5", "6"], typer.Option(help="5: trained on VOC's data alone; 6: on other data too, ImageNet weights among them.")
    ] = "6",
    out: Annotated[Path | None, typer.Option(help="The archive; default submissions/voc-compN.tar.gz.")] = None,
    scales: Scales = "1",
    flip: Flip = False,
    precision: Precision = "fp32",
    factory: Factory = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Pascal VOC 2012: palette PNGs of the pictures' sizes in a .tar.gz, checked when it is packed."""
    from seenet.cli.arguments import numbers
    from seenet.prediction.loading import load
    from seenet.submit.archive import submit_masks, submit_model
    from seenet.submit.voc import VOC, VOC_FOLDER

    path, folder = out or Path(f"submissions/voc-comp{competition}.tar.gz"), VOC_FOLDER.format(competition)
    if masks is not None:
        _not_both(model)
        done = submit_masks(VOC, masks, images, path, folder=folder, overwrite=overwrite)
    else:
        predictor = load(_needed(model), device, precision, scales=numbers(scales, "--scales"), flip=flip, factory=factory)
        done = submit_model(VOC, predictor, images, path, folder=folder, overwrite=overwrite)
    print(done.line())


@app.command()
def cityscapes(
    model: Model = None,
    *,
    images: Images,
    masks: Masks = None,
    ids: Annotated[Literal["trainIds", "labelIds"], typer.Option(help="What --masks hold; `seenet predict` writes trainIds.")] = "trainIds",
    out: Annotated[Path, typer.Option(help="The archive.")] = Path("submissions/cityscapes.zip"),
    scales: Scales = "1",
    flip: Flip = False,
    precision: Precision = "fp32",
    factory: Factory = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Cityscapes: PNGs of labelIds, 2048 x 1024, in a .zip, checked when it is packed."""
    from seenet.cli.arguments import numbers
    from seenet.prediction.loading import load
    from seenet.submit.archive import submit_masks, submit_model
    from seenet.submit.cityscapes import CITYSCAPES

    if masks is not None:
        _not_both(model)
        done = submit_masks(CITYSCAPES, masks, images, out, stored=ids == "labelIds", overwrite=overwrite)
    else:
        predictor = load(_needed(model), device, precision, scales=numbers(scales, "--scales"), flip=flip, factory=factory)
        done = submit_model(CITYSCAPES, predictor, images, out, overwrite=overwrite)
    print(done.line())


@app.command()
def check(
    archive: Annotated[Path, typer.Argument(help="A .tar.gz for VOC or a .zip for Cityscapes, made anywhere.")],
    images: Annotated[
        Path | None, typer.Option(help="The pictures it answers for, folder or list: names and sizes are held against them.")
    ] = None,
) -> None:
    """Check an archive as its server would: count, names, sizes, values. A wrong one is exit 6 and names the first offending file."""
    from seenet.submit.check import check_submission

    print(check_submission(archive, images).line())


def _needed(model: str | None) -> str:
    from seenet.core.errors import UsageError

    if model is None:
        raise UsageError("neither a model nor --masks; give one of them")
    return model


def _not_both(model: str | None) -> None:
    from seenet.core.errors import UsageError

    if model is not None:
        raise UsageError(f"{model}: a model beside --masks, which need none; give one of them")
