"""seenet figure"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Draw the paper's figures for your own runs.")


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace figures that are there.")]


@app.callback()
def figure() -> None:
    """Draw the paper's figures for your own runs."""


@app.command()
def widths(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="Result files of seenet eval, a line each.")],
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The figure.")] = Path("widths.png"),
    overwrite: Overwrite = False,
) -> None:
    """mIoU near outlines over the width of the band, several models in one figure."""
    from seenet.experiments.widths import write_widths_figure

    write_widths_figure(results, out, overwrite=overwrite)
    print(f"written: {out}")


Model = Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")]
Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Pictures, folders (with all below them), or patterns.")]


@app.command()
def heat(
    model: Model,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder of the figures, a PNG for each picture.")] = Path("heat"),
    mask: Annotated[
        Path | None, typer.Option(help="Ground truth of the one picture: ids of the model's classes, or a palette PNG.")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="P2 to P4 with the input that SeEM passes on, not only what it adds.")] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Heat maps of any picture: B2 to B4, and P2 to P4 after enhancement (Figure 1)."""
    from seenet.experiments.heat import write_heat_maps

    report = write_heat_maps(model, images, out, mask=mask, whole=whole, device=device, overwrite=overwrite)
    print(f"{report.written} written, {len(report.failed)} failed: {out}")
    report.check()


@app.command()
def sampling(
    model: Annotated[str | None, typer.Argument(help="Run folder, .safetensors file or bundled name: its levels and rates.")] = None,
    rates: Annotated[str | None, typer.Option(help="Rates of SeEM and SeEM-FS, without a model; default: 7,13,19,25, the paper's.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The figure.")] = Path("sampling.png"),
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Input points that SeEM and SeEM-FS sample, by the gradient (Figure 5)."""
    import json

    from seenet.cli.arguments import whole_numbers
    from seenet.experiments.sampling import lines, write_sampling

    found = write_sampling(out, model=model, rates=None if rates is None else whole_numbers(rates, "--rates"), overwrite=overwrite)
    print(json.dumps([module.result() for module in found], indent=1) if as_json else f"{lines(found)}\nwritten: {out}")


@app.command()
def attention(
    model: Model,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder of the figures, a PNG for each picture.")] = Path("attention"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Boundary attention as maps; its mean at boundaries and elsewhere (Equation 3)."""
    import json

    from seenet.experiments.attention import write_attention

    report = write_attention(model, images, out, device=device, overwrite=overwrite)
    if as_json:
        print(json.dumps(report.result(), indent=1, ensure_ascii=False))
    else:
        print(*report.lines(), f"{report.pictures.written} written, {len(report.pictures.failed)} failed: {out}", sep="\n")
    report.pictures.check()


@app.command()
def panels(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="MODEL [KEY=VALUE]", help="Models, a column each, and settings of the data such as data.root=PATH."),
    ],
    recipe: Annotated[str | None, typer.Option(help="Which data; default: the first model's own run.")] = None,
    split: Annotated[str | None, typer.Option(help="Split by the data set's own name; default: the recipe's data.val.")] = None,
    count: Annotated[int, typer.Option(help="Rows of the last model's best pictures, and of its worst.")] = 3,
    images: Annotated[
        list[str] | None, typer.Option(metavar="IMAGE", help="Instead of a split: a picture, folder or pattern; may be repeated.")
    ] = None,
    factory: Annotated[str | None, typer.Option(help="Of models made by model.factory: package.module:callable, again.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The figure.")] = Path("panels.png"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Picture, truth and several models side by side (Figures 7 and 8)."""
    from seenet.cli.arguments import models_and_overrides
    from seenet.experiments.panels import write_panels

    models, overrides = models_and_overrides(arguments)
    write_panels(
        models, out, recipe=recipe, overrides=overrides, split=split, count=count, images=images or [], factory=factory, device=device,
        overwrite=overwrite,
    )  # fmt: skip
    print(f"written: {out}")


@app.command()
def gap(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="Which data: a recipe (default: the run's own) and settings, such as data.kind=camvid data.root=PATH.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split by the data set's own name; default: the recipe's data.val.")] = None,
    pixels: Annotated[int, typer.Option(help="Points drawn from the split, always the same ones.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Folder of gap.json and gap.png; default RUN/gap/SPLIT or gaps/MODEL-SPLIT.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print gap.json instead of lines.")] = False,
) -> None:
    """The semantic gap: how alike the stages' features are (linear CKA), before and after enhancement."""
    import json

    from seenet.cli.arguments import command_line, recipe_and_overrides
    from seenet.experiments.gap import lines, write_gap

    recipe, overrides = recipe_and_overrides(arguments or [])
    result, folder = write_gap(
        model, recipe, overrides, split=split, pixels=pixels, device=device, out=out, overwrite=overwrite, command=command_line()
    )
    words = [*lines(result), f"written: {folder}/gap.json, gap.png"]
    print(json.dumps(result, indent=1, ensure_ascii=False) if as_json else "\n".join(words))
