"""seenet data"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seenet.cli.arguments import AsJson, Overwrite, Recipe, output

if TYPE_CHECKING:
    from seenet.data.check.propose import Proposal

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Describe your own data, and inspect any data set.",
)

Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.root=PATH.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder with images and masks.")],
    images: Annotated[str | None, typer.Option(help="Folder of the images in it.")] = None,
    masks: Annotated[str | None, typer.Option(help="Folder of the masks in it.")] = None,
    decode: Annotated[
        Literal["palette", "rgb", "threshold"] | None,
        typer.Option(help="How masks are decoded, where their values do not tell."),
    ] = None,
    exif: Annotated[
        Literal["apply", "ignore"] | None,
        typer.Option(help="Whether masks are rotated as the EXIF tags of their images say."),
    ] = None,
    val: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share for validation, if there is none.")
    ] = 0.2,
    test: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share for a test set, if there is none.")
    ] = 0,
) -> None:
    """Write a seenet.yaml for a folder of images and masks.

    Looks into the files for what they are, and says what it found. Writes lists of new splits
    where the data has none. Where two readings remain it asks on a terminal, and else exits with 4
    and the commands to choose.
    """
    from seenet.core.settings import DataSettings
    from seenet.data.folder import open_folder
    from seenet.data.pairing import OWN_FOLDER
    from seenet.report.contact_sheet import write_contact_sheet

    options = {"images": images, "masks": masks, "decode": decode, "exif": exif}
    proposal = _propose(folder, options, val, test)
    proposal.write(folder)
    for remark in proposal.remarks:
        print(remark, file=sys.stderr)
    print(f"{proposal.text}\nwritten: {folder / 'seenet.yaml'}; put the classes' names in")
    split = open_folder(DataSettings(kind="folder", root=folder), "all")
    print(f"open {write_contact_sheet(split, folder / OWN_FOLDER)}: do the masks fit?")


def _propose(folder: Path, options: dict[str, str | None], val: float, test: float) -> "Proposal":
    """Describe a folder as `propose`; on a terminal ask what the files do not tell.

    Raises:
        DataError: as `propose`.
    """
    from rich.console import Console
    from rich.prompt import IntPrompt

    from seenet.data.check.choose import Undecided
    from seenet.data.check.propose import propose

    while True:
        try:
            return propose(folder, val=val, test=test, **options)
        except Undecided as question:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            print(question.found, file=sys.stderr)
            values = list(question.choices)
            for number, value in enumerate(values, 1):
                print(f"  {number}  {value}: {question.choices[value]}", file=sys.stderr)
            numbers = [str(number) for number in range(1, len(values) + 1)]
            try:
                answer = IntPrompt.ask("which", choices=numbers, console=Console(stderr=True))
            except EOFError:
                raise question from None
            options = options | {question.option: values[answer - 1]}


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(help="Folder with pictures and annotations.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the masks and classes.txt.", show_default="FOLDER/seenet-masks"
        ),
    ] = None,
) -> None:
    """Draw polygons as masks, and merge several masks a picture.

    Reads COCO, Labelme, CVAT and YOLO, a mask file a class and a mask file an object.
    """
    from seenet.data.annotations.tree import OUT
    from seenet.data.convert import convert as write_masks

    print(write_masks(folder, out or folder / OUT).text())


@app.command("build-trainaug")
def build_trainaug(
    sbd: Annotated[
        Path, typer.Argument(help="Folder benchmark_RELEASE of SBD, with dataset/cls/*.mat.")
    ],
    voc: Annotated[Path, typer.Argument(help="Folder that contains VOC2012.")],
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace existing masks and lists that differ."),
    ] = False,
) -> None:
    """Make VOC's trainaug split of SBD's .mat files.

    The split has 10,582 images. Writes SegmentationClassAug/*.png and trainaug.txt.
    """
    from seenet.data.voc import build_trainaug as build

    done = build(sbd, voc, overwrite=overwrite)
    print(
        f"{done.total} images: {done.official} with VOC's own masks, {done.written} written, "
        f"{done.there} there before: {done.path}"
    )


@app.command()
def stats(recipe: Recipe, settings: Settings = None) -> None:
    """Print statistics of the train split.

    Pixels and images of each class, image sizes, and median-frequency class weights. For your own
    data also mean and standard deviation of the channels, as lines of seenet.yaml.
    """
    from seenet.core.recipe_files import load_recipe
    from seenet.data import open_split
    from seenet.data.check.scan import channel_stats, split_stats

    resolved = load_recipe(recipe, settings).data
    split = open_split(resolved, resolved.train)
    print(split_stats(split).table())
    if resolved.kind == "folder":
        for name, values in zip(("mean", "std"), channel_stats(split), strict=True):
            print(f"{name}: [{', '.join(f'{value:.4f}' for value in values)}]")


@app.command()
def check(
    recipe: Recipe,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a page of the errors with their images, and check.json."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Check all images and masks.

    Reads the train and val splits and lists all errors with their fixes. The exit code is 6 if
    there is an error.
    """
    from seenet.core.errors import CheckError
    from seenet.core.recipe_files import load_recipe
    from seenet.data.check.inspection import inspect
    from seenet.data.check.summary import as_json as to_json
    from seenet.data.check.summary import text, verdict_line

    data = load_recipe(recipe, settings).data
    if out is not None:
        from seenet.report.data_check import refuse_existing, write_page

        refuse_existing(out, overwrite=overwrite)
    found = inspect(data)
    output(to_json(found, data), text(found), as_json=as_json)
    if out is not None:
        page = write_page(found, data, out)
        print(f"open {page}", file=sys.stderr if as_json else sys.stdout)
    if found.errors:
        where = f" and in {out}" if out else ""
        raise CheckError(f"{verdict_line(found)}; the fixes are listed above{where}")


@app.command()
def show(
    recipe: Recipe,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("data-page"),
    overwrite: Overwrite = False,
) -> None:
    """Write a page of images and masks.

    Shows them before and after the transforms of training.
    """
    from seenet.core.recipe_files import load_recipe
    from seenet.report.gallery import data_page

    print(f"open {data_page(load_recipe(recipe, settings), out, overwrite=overwrite)}")
