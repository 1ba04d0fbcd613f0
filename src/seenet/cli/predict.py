"""seenet predict"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from seenet.cli import arguments as shared


def predict(
    model: shared.ModelOrBundle,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=shared.IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="Folder of masks and overlays.")] = Path("predictions"),
    scales: shared.Scales = "1",
    flip: shared.Flip = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write the probabilities, float16 (classes x height x width) in .npz.",
        ),
    ] = False,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="Number format of the network. auto: the fastest that agrees with fp32."),
    ] = "auto",
    runtime: Annotated[
        Literal["auto", "eager", "onnx", "openvino"],
        typer.Option(
            help="Runtime of the network. auto: the fastest. It is measured once per model and "
            "machine, if that saves more time than it takes."
        ),
    ] = "auto",
    tile: shared.Tile = "auto",
    margin: shared.Margin = 256,
    memory: shared.Memory = 2.0,
    factory: shared.Factory = None,
    device: shared.Device = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace files made from another input, model or settings."
        ),
    ] = False,
    as_json: shared.AsJson = False,
) -> None:
    """Segment images.

    Writes masks/NAME.png (class ids, with palette) and overlays/NAME.jpg. Images that are done are
    skipped.
    """
    from dataclasses import asdict

    from seenet.distributed import all_gather, init_process_group
    from seenet.export.auto import open_chosen
    from seenet.prediction.batch import predict_files

    with init_process_group(device) as group:
        chosen = open_chosen(
            model,
            inputs,
            out,
            runtime=runtime,
            precision=precision,
            device=device,
            scales=shared.numbers(scales, "--scales", float),
            flip=flip,
            tile=shared.tile_size(tile),
            margin=margin,
            memory=memory,
            factory=factory,
        )
        choice = chosen.choice
        if group.first:
            print(
                f"runtime {choice.runtime}, precision {choice.precision}: {choice.why}",
                file=sys.stderr,
            )
        report = predict_files(
            chosen.predictor,
            inputs,
            out,
            probabilities=probabilities,
            overwrite=overwrite,
            share=(group.rank, group.world),
            chooser=chosen,
        )
        report.written = sum(all_gather([report.written]))
        report.skipped = sum(all_gather([report.skipped]))
        failed = all_gather(report.failed)
        if group.first:
            report.failed = failed
    report.choice = asdict(chosen.choice)
    if group.first:
        kinds = "masks/, overlays/ and probabilities/" if probabilities else "masks/ and overlays/"
        counts = f"{report.written} written, {report.skipped} done before, {len(failed)} failed"
        shared.output(report.result(), f"{counts}: {kinds} in {out}", as_json=as_json)
    report.check()
