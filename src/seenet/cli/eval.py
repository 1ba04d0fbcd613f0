"""seenet eval"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from seenet.cli import arguments as shared


def eval_(
    model: shared.ModelOrBundle,
    arguments: shared.RecipeAndSettings = None,
    split: shared.Split = None,
    scales: shared.Scales = "1",
    flip: shared.Flip = False,
    boundary: Annotated[
        Literal["auto", "none", "trimap", "transition"],
        typer.Option(
            help="mIoU near boundaries: around ignored rims (trimap) or between classes "
            "(transition). auto chooses by the labels."
        ),
    ] = "auto",
    widths: Annotated[
        str, typer.Option(help="Widths of the boundary bands, in pixels.")
    ] = "1,3,5,10,21,30,40",
    boundary_iou: Annotated[
        bool, typer.Option("--boundary-iou", help="Boundary IoU of each class.")
    ] = False,
    conventions: Annotated[
        bool,
        typer.Option("--conventions", help="mIoU by the conventions of other tools."),
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Further metric: a name, or your own as package.module:callable. Repeatable.",
        ),
    ] = None,
    mean_over: Annotated[
        str | None,
        typer.Option(metavar="CLASS,CLASS,...", help="One more mIoU, over these classes."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Number format of the network.")
    ] = "fp32",
    tile: shared.Tile = "whole",
    margin: shared.Margin = 256,
    memory: shared.Memory = 2.0,
    factory: shared.Factory = None,
    device: shared.Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results. Default: RUN/eval/SPLIT or evaluations/MODEL-SPLIT."
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    as_json: shared.AsJson = False,
) -> None:
    """Score a model on a split.

    Writes result.json, the confusion matrix, and the worst and best images. If it is interrupted,
    the same command continues; with your own code (--factory, --metric, data.kind) it starts again.
    """
    from seenet.evaluation.outcome import tables
    from seenet.evaluation.run import run_evaluation

    recipe, overrides = shared.recipe_and_overrides(arguments or [])
    report = run_evaluation(
        model,
        recipe,
        overrides,
        split=split,
        scales=shared.numbers(scales, "--scales", float),
        flip=flip,
        boundary=None if boundary == "none" else boundary,
        widths=shared.numbers(widths, "--widths", int),
        boundary_iou=boundary_iou,
        conventions=conventions,
        metrics=metric or [],
        mean_over=None if mean_over is None else [name.strip() for name in mean_over.split(",")],
        precision=precision,
        device=device,
        tile=shared.tile_size(tile),
        margin=margin,
        memory=memory,
        out=out,
        overwrite=overwrite,
        command=shared.command_line(),
        factory=factory,
    )
    if report.first:
        shared.output(
            report.result,
            f"written: {report.out}/result.json, confusion.png, images/",
            as_json=as_json,
            table=tables(report.result, report.evaluation.metrics),
        )
