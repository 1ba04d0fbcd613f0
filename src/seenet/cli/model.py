"""seenet model"""

from typing import Annotated

import typer


def model(
    variant: Annotated[str, typer.Argument(help="Row of Table 1, by name.")] = "seenet",
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Options of the network, such as p_out=128."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Any timm network with four strides.")] = "resnet50",
    size: Annotated[int, typer.Option(min=1, help="Side of the input, pixels.")] = 512,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 21,
    list_all: Annotated[
        bool, typer.Option("--list", help="Variants, backbones tried, bundled models.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List each part of a network with its output shape, parameters and FLOPs, and how far its scores look."""
    import json

    from seenet.core.recipe_files import parse_options
    from seenet.model.summary import catalogue, summary_of

    if list_all:
        print(
            json.dumps(catalogue(), indent=1)
            if as_json
            else "\n".join(f"{name}: {', '.join(values)}" for name, values in catalogue().items())
        )
        return
    found = summary_of(variant, backbone, classes, size, parse_options(settings or []))
    print(json.dumps(found.result(), indent=1) if as_json else found.table())
