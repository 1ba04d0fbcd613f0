"""seenet data"""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Describe your own data, and look at any.")

Recipe = Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.root=PATH.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder with pictures and masks.")]) -> None:
    """Look at a folder of pictures and masks and write its seenet.yaml."""
    from seenet.data.check.propose import write_proposal

    print(write_proposal(folder))


@app.command("build-trainaug")
def build_trainaug(
    sbd: Annotated[Path, typer.Argument(help="SBD: the folder benchmark_RELEASE, with dataset/cls/*.mat.")],
    voc: Annotated[Path, typer.Argument(help="The folder that holds VOC2012.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks and a list that are there and differ.")] = False,
) -> None:
    """Make VOC's trainaug (10,582 pictures) of SBD's .mat files: SegmentationClassAug/*.png and trainaug.txt."""
    from seenet.data.voc import build_trainaug as build

    done = build(sbd, voc, overwrite=overwrite)
    print(f"{done.total} pictures: {done.official} with VOC's own masks, {done.written} written, {done.there} there before: {done.path}")


@app.command()
def stats(recipe: Recipe, settings: Settings = None) -> None:
    """Pixels and pictures of each class, sizes, and median-frequency weights of the train split."""
    from seenet.core.recipe_files import load_recipe
    from seenet.data import open_split
    from seenet.data.check.scan import split_stats

    resolved = load_recipe(recipe, settings)
    print(split_stats(open_split(resolved.data, resolved.data.train)).table())


@app.command()
def check(
    recipe: Recipe,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Also write a page of the errors with their pictures, and check.json, here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Read every picture and mask of both splits and list all that is wrong, with what would mend it. Exit 6 where anything is."""
    import json

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
    print(json.dumps(to_json(found, data), indent=1, ensure_ascii=False) if as_json else text(found))
    if out is not None:
        page = write_page(found, data, out)
        print(f"open {page}", file=sys.stderr if as_json else sys.stdout)
    if found.errors:
        raise CheckError(f"{verdict_line(found)}; what would mend them is listed above{f' and in {out}' if out else ''}")


@app.command()
def show(
    recipe: Recipe,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("data-page"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
) -> None:
    """Write a page of pictures with their masks, before and after transforms: what the network really sees."""
    from seenet.core.recipe_files import load_recipe
    from seenet.report.gallery import data_page

    print(f"open {data_page(load_recipe(recipe, settings), out, overwrite=overwrite)}")
