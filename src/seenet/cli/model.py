"""seenet model"""

from typing import Annotated

import typer

from seenet.cli.arguments import AsJson, output


def model(
    variant: Annotated[str, typer.Argument(help="Row of Table 1, by name.")] = "seenet",
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Options of the network, such as p_out=128."),
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Any timm network with features at four strides.")
    ] = "resnet50",
    size: Annotated[int, typer.Option(min=1, help="Side of the input, in pixels.")] = 512,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 21,
    list_all: Annotated[
        bool, typer.Option("--list", help="List variants, tested backbones and bundled models.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the parts of a network with output shape, parameters and FLOPs.

    The last line is the radius of the receptive field.
    """
    from seenet.core.recipe_files import parse_options
    from seenet.model.summary import catalogue, summary_of

    if list_all:
        names = catalogue()
        lines = [f"{name}: {', '.join(values)}" for name, values in names.items()]
        output(names, "\n".join(lines), as_json=as_json)
        return
    found = summary_of(variant, backbone, classes, size, parse_options(settings or []))
    output(found.result(), found.table(), as_json=as_json)
