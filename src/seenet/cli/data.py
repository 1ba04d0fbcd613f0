"""seenet data"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Describe your own data, and look at any.")

Recipe = Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.root=PATH.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder with pictures and masks.")]) -> None:
    """Look at a folder of pictures and masks and write its seenet.yaml."""
    from seenet.data.propose import write_proposal

    print(write_proposal(folder))


@app.command("build-trainaug")
def build_trainaug(
    sbd: Annotated[Path, typer.Argument(help="SBD: the folder benchmark_RELEASE, with dataset/cls/*.mat.")],
    voc: Annotated[Path, typer.Argument(help="The folder that holds VOC2012.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks and a list that are there and differ.")] = False,
) -> None:
    """Make VOC's trainaug (10,582 pictures) of SBD's .mat files: SegmentationClassAug/*.png and trainaug.txt."""
    from seenet.data.trainaug import build_trainaug as build

    done = build(sbd, voc, overwrite=overwrite)
    print(f"{done.total} pictures: {done.official} with VOC's own masks, {done.written} written, {done.there} there before: {done.path}")


@app.command()
def stats(recipe: Recipe, settings: Settings = None) -> None:
    """Pixels and pictures of each class, sizes, and median-frequency weights of the train split."""
    from seenet.core.recipe_files import load_recipe
    from seenet.data import open_split
    from seenet.data.stats import split_stats

    resolved = load_recipe(recipe, settings)
    print(split_stats(open_split(resolved.data, resolved.data.train)).table())


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
