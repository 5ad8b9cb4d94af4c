"""For MkDocs: links out of this folder (`../benches/…`) lead to files of the repository, which a site does not have."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Such a link becomes its text and the path of the file."""
    return _OUTSIDE.sub(_as_text, markdown)


def _as_text(found: re.Match[str]) -> str:
    text, path = found[1], found[2]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"
