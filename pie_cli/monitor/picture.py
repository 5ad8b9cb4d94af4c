"""The screen as SVG."""

from __future__ import annotations

import re

FONTS = "Menlo, Consolas, DejaVu Sans Mono, Liberation Mono, monospace"
_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}\s*(?=\n)", re.DOTALL)
_FAMILY = re.compile(r"font-family:\s*[^;]+;")
_IDENT = re.compile(r"terminal-\d+")


def portable(svg: str) -> str:
    """What Textual exports, with fonts that are everywhere: a picture must not ask the network for its letters."""
    svg = _FONT_FACE.sub("", svg)
    svg = _FAMILY.sub(f"font-family: {FONTS};", svg)
    return "\n".join(line.rstrip() for line in _IDENT.sub("terminal", svg).splitlines()) + "\n"
