"""seenet predict"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def predict(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file, exported bundle or bundled name.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (with all below them), or patterns.")],
    out: Annotated[Path, typer.Option(help="Folder of the masks and overlays.")] = Path("predictions"),
    scales: Annotated[str, typer.Option(help="Factors whose probabilities are averaged, such as 0.75,1,1.25.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write them, float16 (classes x height x width) in .npz.")
    ] = False,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Number format of the network; auto: the fastest that answers as fp32.")
    ] = "auto",
    runtime: Annotated[
        Literal["auto", "eager", "onnx", "openvino"],
        typer.Option(help="What computes; auto: the fastest, tried once a model and machine, where that saves more than it costs."),
    ] = "auto",
    tile: Annotated[
        str, typer.Option(help="Cut large pictures: side of what is seen at once, in pixels; auto: by --memory; whole: never.")
    ] = "auto",
    margin: Annotated[int, typer.Option(help="Pixels that a tile sees around those it answers for.")] = 256,
    memory: Annotated[float, typer.Option(help="Gigabytes that a pass may take before --tile auto cuts.")] = 2.0,
    factory: Annotated[str | None, typer.Option(help="Of a model made by model.factory: package.module:callable, again.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that were not made from the same input, model and settings."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Segment pictures: masks/NAME.png (class ids, with palette) and overlays/NAME.jpg; what is done already is
    skipped.
    """
    import json
    import sys
    from dataclasses import asdict

    from seenet.cli.arguments import numbers, tile_size
    from seenet.distributed import all_gather, init_process_group
    from seenet.export.auto import open_chosen
    from seenet.prediction.batch import predict_files

    with init_process_group(device) as group:
        chosen = open_chosen(
            model, inputs, out, runtime=runtime, precision=precision, device=device, scales=numbers(scales, "--scales"), flip=flip,
            tile=tile_size(tile), margin=margin, memory=memory, factory=factory,
        )  # fmt: skip
        if group.first:
            print(f"runtime {chosen.choice.runtime}, precision {chosen.choice.precision}: {chosen.choice.why}", file=sys.stderr)
        report = predict_files(
            chosen.predictor, inputs, out, probabilities=probabilities, overwrite=overwrite, share=(group.rank, group.world), chooser=chosen
        )
        report.written, report.skipped = sum(all_gather([report.written])), sum(all_gather([report.skipped]))
        failed = all_gather(report.failed)
        if group.first:
            report.failed = failed
    report.choice = asdict(chosen.choice)
    if group.first and as_json:
        print(json.dumps(report.result(), indent=1, ensure_ascii=False))
    elif group.first:
        kinds = "masks/ and overlays/" if not probabilities else "masks/, overlays/ and probabilities/"
        print(f"{report.written} written, {report.skipped} done before, {len(failed)} failed: {kinds} in {out}")
    report.check()
