"""seenet figure"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import (
    IMAGES_HELP,
    AsJson,
    Device,
    Factory,
    Model,
    Overwrite,
    RecipeAndSettings,
    Split,
    command_line,
    models_and_overrides,
    numbers,
    output,
    recipe_and_overrides,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help=IMAGES_HELP)]
Folder = Annotated[Path, typer.Option(help="Folder of the figures, a PNG for each image.")]
File = Annotated[Path, typer.Option(metavar="FILE.png", help="File of the figure.")]


@app.callback()
def figure() -> None:
    """Draw the paper's figures for your own runs."""


@app.command()
def widths(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT.json...", help="Result files of seenet eval."),
    ],
    out: File = Path("widths.png"),
    overwrite: Overwrite = False,
) -> None:
    """Plot the mIoU near boundaries by band width.

    The plot has a line for each result file.
    """
    from seenet.experiments.widths import write_widths_figure

    write_widths_figure(results, out, overwrite=overwrite)
    print(f"written: {out}")


@app.command()
def heat(
    model: Model,
    images: Images,
    out: Folder = Path("heat"),
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Ground truth of a single image: ids of the model's classes, or a palette PNG."
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Show P2 to P4 with the input that SeEM passes on, not only its output."
        ),
    ] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw heat maps of features (Figure 1).

    Shows B2 to B4, and P2 to P4 after enhancement.
    """
    from seenet.experiments.heat import write_heat_maps

    report = write_heat_maps(
        model, images, out, mask=mask, whole=whole, device=device, overwrite=overwrite
    )
    print(f"{report.written} written, {len(report.failed)} failed: {out}")
    report.check()


@app.command()
def sampling(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Run folder, .safetensors file or bundled name, for its levels and rates."
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Rates of SeEM and SeEM-FS, without a model. Default: 7,13,19,25, the paper's."
        ),
    ] = None,
    out: File = Path("sampling.png"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw the points that SeEM samples (Figure 5).

    The input points of SeEM and SeEM-FS are found by the gradient.
    """
    from seenet.experiments.sampling import lines, write_sampling

    found = write_sampling(
        out,
        model=model,
        rates=None if rates is None else numbers(rates, "--rates", int),
        overwrite=overwrite,
    )
    value = [module.result() for module in found]
    output(value, f"{lines(found)}\nwritten: {out}", as_json=as_json)


@app.command()
def attention(
    model: Model,
    images: Images,
    out: Folder = Path("attention"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw the boundary attention (Equation 3).

    Also prints its mean at boundaries and elsewhere.
    """
    from seenet.experiments.attention import write_attention

    report = write_attention(model, images, out, device=device, overwrite=overwrite)
    done = f"{report.pictures.written} written, {len(report.pictures.failed)} failed: {out}"
    output(report.result(), "\n".join([*report.lines(), done]), as_json=as_json)
    report.pictures.check()


@app.command()
def panels(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE]...",
            help="Models, a column each, and settings of the data such as data.root=PATH.",
        ),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the data. Default: that of the first model's run.")
    ] = None,
    split: Split = None,
    count: Annotated[
        int, typer.Option(help="Rows of the last model's best images, and of its worst.")
    ] = 3,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help="Image, folder or pattern to show instead of a split. Repeatable.",
        ),
    ] = None,
    factory: Factory = None,
    out: File = Path("panels.png"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw models side by side (Figures 7 and 8).

    A row has an image, its truth and the prediction of each model.
    """
    from seenet.experiments.panels import write_panels

    models, overrides = models_and_overrides(arguments)
    write_panels(
        models,
        out,
        recipe=recipe,
        overrides=overrides,
        split=split,
        count=count,
        images=images or [],
        factory=factory,
        device=device,
        overwrite=overwrite,
    )
    print(f"written: {out}")


@app.command()
def gap(
    model: Model,
    arguments: RecipeAndSettings = None,
    split: Split = None,
    pixels: Annotated[
        int, typer.Option(help="Number of points drawn from the split, the same at every call.")
    ] = 20_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of gap.json and gap.png. Default: RUN/gap/SPLIT or gaps/MODEL-SPLIT."
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure the semantic gap between stages.

    Compares the features of the stages by linear CKA, before and after enhancement.
    """
    from seenet.experiments.gap import lines, write_gap

    recipe, overrides = recipe_and_overrides(arguments or [])
    result, folder = write_gap(
        model,
        recipe,
        overrides,
        split=split,
        pixels=pixels,
        device=device,
        out=out,
        overwrite=overwrite,
        command=command_line(),
    )
    text = "\n".join([*lines(result), f"written: {folder}/gap.json, gap.png"])
    output(result, text, as_json=as_json)
