"""seenet export"""

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings on --recipe, such as data.root=PATH."
        ),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write: .onnx, .xml (with .bin beside it), .pt2, or .safetensors for fp16."
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="fp16|onnx|openvino|torch|package.module:callable",
            help="fp16: one .safetensors of half the size; the others are bundles that need no "
            "seenet to run; or a writer of yours.",
        ),
    ] = "fp16",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Eight-bit weights and activations, calibrated on --images (onnx, openvino).",
        ),
    ] = False,
    half: Annotated[bool, typer.Option("--fp16", help="Weights in fp16 (openvino).")] = False,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="Leave all convolutions as they are, for graphics cards (onnx, openvino).",
        ),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Picture, folder or pattern to compare on; may be repeated; default: bundled photographs.",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Labelled data on which the mIoU is compared too.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of that data; default: the recipe's data.val.")
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(help="Of a model made by model.factory: package.module:callable, again."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was checked as JSON.")
    ] = False,
) -> None:
    """Write a model as a file for others to use, and check what was written."""
    import json

    from rich.console import Console

    if kind == "fp16":
        from seenet.cli.arguments import refuse_options
        from seenet.export.torch import export_half

        bundles = {"--int8": int8, "--fp16": half, "--plain": plain, "--json": as_json}
        given = {
            **bundles,
            "--images": images,
            "--recipe": recipe,
            "--split": split,
            "--factory": factory,
            "KEY=VALUE": settings,
        }
        refuse_options(
            given, "--format fp16 takes none of it; give --format onnx, openvino or torch"
        )
        error = export_half(model, out, overwrite=overwrite)
        print(
            f"{out}: {out.stat().st_size / 1e6:.1f} MB in {kind}, weights within {error:.1e} of their tensor's largest"
        )
        return
    from seenet.export.run import run_export, table

    report = run_export(
        model, out, kind, int8=int8, half=half, plain=plain, images=images or (), recipe=recipe, overrides=settings or (), split=split,
        factory=factory, overwrite=overwrite,
    )  # fmt: skip
    if as_json:
        print(json.dumps(report.result(), indent=1, ensure_ascii=False))
    else:
        Console().print(table(report))
        print(f"written: {', '.join(map(str, report.files))}")
