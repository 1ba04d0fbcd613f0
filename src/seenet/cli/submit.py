"""seenet submit"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seenet.cli.arguments import Device, Factory, Flip, Scales, numbers
from seenet.core.errors import UsageError

if TYPE_CHECKING:
    from seenet.submit.benchmark import Benchmark

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Pack predictions for the servers of VOC and Cityscapes, and check such archives.",
)

Model = Annotated[
    str | None,
    typer.Argument(help="Run folder, .safetensors file or bundled name; not with --masks."),
]
Images = Annotated[
    Path,
    typer.Option(
        help="Folder of the test images, or a list of them (such as "
        "ImageSets/Segmentation/test.txt)."
    ),
]
Masks = Annotated[
    Path | None, typer.Option(help="Folder of masks to pack, instead of predicting with a model.")
]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Number format of the network.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an existing archive, and predictions of another model or settings.",
    ),
]


@app.command()
def voc(
    model: Model = None,
    *,
    images: Images,
    masks: Masks = None,
    competition: Annotated[
        Literal["5", "6"],
        typer.Option(
            help="5: trained on VOC's data only. 6: also on other data, such as ImageNet weights."
        ),
    ] = "6",
    out: Annotated[
        Path | None, typer.Option(help="The archive. Default: submissions/voc-compN.tar.gz.")
    ] = None,
    scales: Scales = "1",
    flip: Flip = False,
    precision: Precision = "fp32",
    factory: Factory = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Pack a .tar.gz for Pascal VOC 2012.

    It holds palette PNGs of the images' sizes, and is checked after packing.
    """
    from seenet.submit.benchmark import VOC, VOC_FOLDER

    _submit(
        VOC,
        model,
        masks,
        images,
        out or Path(f"submissions/voc-comp{competition}.tar.gz"),
        folder=VOC_FOLDER.format(competition),
        overwrite=overwrite,
        scales=scales,
        flip=flip,
        precision=precision,
        factory=factory,
        device=device,
    )


@app.command()
def cityscapes(
    model: Model = None,
    *,
    images: Images,
    masks: Masks = None,
    ids: Annotated[
        Literal["trainIds", "labelIds"],
        typer.Option(help="Ids in --masks; `seenet predict` writes trainIds."),
    ] = "trainIds",
    out: Annotated[Path, typer.Option(help="The archive.")] = Path("submissions/cityscapes.zip"),
    scales: Scales = "1",
    flip: Flip = False,
    precision: Precision = "fp32",
    factory: Factory = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Pack a .zip for Cityscapes.

    It holds PNGs of labelIds, 2048 x 1024, and is checked after packing.
    """
    from seenet.submit.benchmark import CITYSCAPES

    _submit(
        CITYSCAPES,
        model,
        masks,
        images,
        out,
        stored=ids == "labelIds",
        overwrite=overwrite,
        scales=scales,
        flip=flip,
        precision=precision,
        factory=factory,
        device=device,
    )


@app.command()
def check(
    archive: Annotated[
        Path, typer.Argument(help="A .tar.gz for VOC or a .zip for Cityscapes, from any tool.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder or list of the test images, to check names and sizes."),
    ] = None,
) -> None:
    """Check an archive as its server does.

    Checks number, names, sizes and values of the masks. The exit code is 6 if the archive is
    wrong; the error names the first wrong file.
    """
    from seenet.submit.check import check_submission

    print(check_submission(archive, images).line())


def _submit(
    benchmark: "Benchmark",
    model: str | None,
    masks: Path | None,
    images: Path,
    out: Path,
    *,
    folder: str = "",
    stored: bool = False,
    overwrite: bool,
    scales: str,
    **options: Any,
) -> None:
    """Pack `masks`, or the predictions of `model` opened with `options`, and print a summary."""
    from seenet.prediction.loading import load
    from seenet.submit.archive import submit_masks, submit_model

    if (model is None) == (masks is None):
        found = "neither a model nor" if model is None else "both a model and"
        raise UsageError(f"found {found} --masks; give one of them")
    if masks is not None:
        done = submit_masks(
            benchmark, masks, images, out, folder=folder, stored=stored, overwrite=overwrite
        )
    else:
        predictor = load(str(model), scales=numbers(scales, "--scales", float), **options)
        done = submit_model(benchmark, predictor, images, out, folder=folder, overwrite=overwrite)
    print(done.line())
