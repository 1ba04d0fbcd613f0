"""Read the HTML pages that tests write."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, texts and images of a page.

    Fails on unbalanced tags, event handlers and addresses outside the page. Elements of SVG may
    close themselves.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in {"src", "href", "xlink:href", "srcset", "action"}:
                assert (value or "").startswith(("data:image/", "#")), value
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def decode(uri: str | None) -> np.ndarray:
    """Decode a data URI, H x W x 3 uint8."""
    data = base64.b64decode(str(uri).split(",", 1)[1])
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
