"""seenet export"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import AsJson, Factory, Model, Overwrite, Split, output


def export(
    model: Model,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings of --recipe, such as data.root=PATH."
        ),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .onnx, .xml (with a .bin beside it), .pt2, or .safetensors for "
            "fp16."
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="fp16|onnx|openvino|torch|package.module:callable",
            help="fp16: a .safetensors file of half the size. The others are bundles that run "
            "without seenet, or a writer of yours.",
        ),
    ] = "fp16",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit weights and activations, calibrated on --images (onnx, openvino).",
        ),
    ] = False,
    half: Annotated[bool, typer.Option("--fp16", help="fp16 weights (openvino).")] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Keep all convolutions as they are, for GPUs (onnx, openvino).",
        ),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Image, folder or pattern to compare the bundle on. Repeatable. Default: the "
            "bundled photographs.",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Labelled data on which the mIoU is compared too.")
    ] = None,
    split: Split = None,
    factory: Factory = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Export a model to a file for other programs, and check the file."""
    if kind == "fp16":
        from seenet.core.errors import UsageError
        from seenet.export.torch import export_half

        given = {
            "--int8": int8,
            "--fp16": half,
            "--plain": plain,
            "--json": as_json,
            "--images": images,
            "--recipe": recipe,
            "--split": split,
            "--factory": factory,
            "KEY=VALUE": settings,
        }
        for option in (name for name, value in given.items() if value):
            raise UsageError(
                f"{option}: --format fp16 takes none of it; give --format onnx, openvino or torch"
            )
        error = export_half(model, out, overwrite=overwrite)
        print(
            f"{out}: {out.stat().st_size / 1e6:.1f} MB in {kind}, "
            f"weights within {error:.1e} of their tensor's largest"
        )
        return
    from seenet.export.run import run_export, table

    report = run_export(
        model,
        out,
        kind,
        int8=int8,
        half=half,
        plain=plain,
        images=images or (),
        recipe=recipe,
        overrides=settings or (),
        split=split,
        factory=factory,
        overwrite=overwrite,
    )
    files = ", ".join(map(str, report.files))
    output(report.result(), f"written: {files}", as_json=as_json, table=table(report))
