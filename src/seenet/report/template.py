"""Templates to pages: whatever comes from users is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import seenet
from seenet.core.files import write_text


def render(path: Path, template: str, **values: Any) -> None:
    """Write a page, whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    footer = f"Written by SeENet {seenet.__version__}. One file: it needs no server and no network."
    page = environment.get_template(template).render(footer=footer, **values)
    # A file name of undecodable bytes reaches Python as lone surrogates, which UTF-8 has no form for.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
