"""seenet eval"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def eval_(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file, exported bundle or bundled name.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]",
            help="Which data: a recipe (default: the run's own) and settings, such as data.kind=camvid data.root=PATH.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split by the data set's own name; default: the recipe's data.val.")] = None,
    scales: Annotated[str, typer.Option(help="Factors whose probabilities are averaged, such as 0.75,1,1.25.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture.")] = False,
    boundary: Annotated[
        Literal["auto", "none", "trimap", "transition"],
        typer.Option(help="Also mIoU near outlines: around ignored rims (trimap) or between classes (transition); auto: what fits."),
    ] = "auto",
    widths: Annotated[str, typer.Option(help="Widths of these bands, pixels.")] = "1,3,5,10,21,30,40",
    boundary_iou: Annotated[bool, typer.Option("--boundary-iou", help="Also Boundary IoU of each class.")] = False,
    conventions: Annotated[bool, typer.Option("--conventions", help="Also the mIoU as other tools take it, in one table.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One more metric: a name, or yours as package.module:callable; give it again for more."),
    ] = None,
    mean_over: Annotated[
        str | None, typer.Option(metavar="CLASS,CLASS,...", help="One more mIoU, over these classes of the same matrix.")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Number format of the network.")] = "fp32",
    tile: Annotated[
        str, typer.Option(help="Cut large pictures: side of what is seen at once, in pixels; auto: by --memory; whole: never.")
    ] = "whole",
    margin: Annotated[int, typer.Option(help="Pixels that a tile sees around those it answers for.")] = 256,
    memory: Annotated[float, typer.Option(help="Gigabytes that a pass may take before --tile auto cuts.")] = 2.0,
    factory: Annotated[str | None, typer.Option(help="Of a model made by model.factory: package.module:callable, again.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default RUN/eval/SPLIT or evaluations/MODEL-SPLIT.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result file instead of tables.")] = False,
) -> None:
    """Score a model: per-class table, result.json, confusion matrix, worst and best pictures. Interrupted, the same command goes on."""
    import json

    from rich.console import Console

    from seenet.cli.arguments import command_line, numbers, recipe_and_overrides, tile_size, whole_numbers
    from seenet.evaluation.outcome import tables
    from seenet.evaluation.run import run_evaluation

    recipe, overrides = recipe_and_overrides(arguments or [])
    report = run_evaluation(
        model, recipe, overrides, split=split, scales=numbers(scales, "--scales"), flip=flip,
        boundary=None if boundary == "none" else boundary, widths=whole_numbers(widths, "--widths"),
        boundary_iou=boundary_iou, conventions=conventions, metrics=metric or [],
        mean_over=None if mean_over is None else [name.strip() for name in mean_over.split(",")],
        precision=precision, device=device, tile=tile_size(tile), margin=margin, memory=memory,
        out=out, overwrite=overwrite, command=command_line(), factory=factory,
    )  # fmt: skip
    if not report.first:
        return
    if as_json:
        print(json.dumps(report.result, indent=1, ensure_ascii=False))
    else:
        Console().print(tables(report.result, report.evaluation.metrics))
        print(f"written: {report.out}/result.json, confusion.png, images/")
