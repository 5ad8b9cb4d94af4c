"""The fenced blocks of all pages that people read, and which test is answerable for each.

A block is checked by what `CHECKED` names, or its page says above it why nothing can: `<!-- not checked: reason -->`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN = ROOT / "docs" / "cli.md"
"""By the code, whole; `tests/unit/test_cli_startup.py` compares it."""
_PLACES = ("README.md", "docs/*.md", "templates/*/README.md", "inferlets/*/README.md")
PAGES = sorted(page for place in _PLACES for page in ROOT.glob(place))
_FENCE = re.compile(
    r"^(?:[ ]*<!-- not checked: (?P<why>[^\n]+) -->\n\s*)?"
    r"(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("console", "sh")

_SDK_PAGES = (
    *("docs/adapters.md", "docs/debugging.md", "docs/first-inferlet.md", "docs/from-the-original-pie.md"),
    *("docs/index.md", "docs/inferlets.md", "docs/kv-cache.md", "docs/market.md", "docs/sampling.md"),
    *("docs/sdk.md", "docs/tools.md"),
)
_TYPED = (
    *("docs/adapters.md", "docs/building.md", "docs/deploying.md", "docs/first-inferlet.md", "docs/index.md"),
    *("docs/kv-cache.md", "docs/profiling.md", "docs/record-replay.md"),
)
_READMES = tuple(str(page.relative_to(ROOT)) for page in PAGES if page.parts[-3] in ("templates", "inferlets"))

CHECKED: dict[str, dict[str, tuple[str, ...]]] = {
    "tests/unit/test_sdk_docs.py": {"program": _SDK_PAGES},
    "tests/unit/test_docs_values.py": {
        "toml": (
            *("README.md", "docs/adapters.md", "docs/building.md", "docs/configuration.md", "docs/inferlets.md"),
            *("docs/market.md", "docs/metrics.md"),
        ),
        "json": ("docs/debugging.md", "docs/wire.md"),
        "ini": ("docs/deploying.md",),
        "yaml": ("docs/metrics.md",),
        "text": ("docs/sdk.md",),
    },
    "tests/unit/host_operations/test_contexts.py": {"text": ("docs/kv-cache.md",)},
    "tests/integration/test_testing_docs.py": {
        "program": ("docs/testing-programs.md",),
        "test": ("docs/first-inferlet.md", "docs/testing-programs.md", "docs/record-replay.md"),
    },
    "tests/e2e/test_grammar.py": {"program": ("docs/grammar.md",)},
    "tests/e2e/test_client_docs.py": {
        "python": ("docs/first-inferlet.md", "docs/python-client.md"),
        "program": ("docs/python-client.md",),
        "text": ("docs/python-client.md",),
    },
    "tests/e2e/test_cli_readme.py": {"shell": ("README.md",), "program": ("README.md",), "python": ("README.md",)},
    "tests/e2e/test_docs_typed.py": {"shell": (*_TYPED, *_READMES), "text": ("docs/record-replay.md",)},
    "tests/e2e/test_docs_terminal.py": {
        "shell": ("docs/debugging.md", "docs/developing.md"),
        "pycon": ("docs/debugging.md",),
    },
    "tests/e2e/test_http_docs.py": {"shell": ("docs/http.md",), "json": ("docs/http.md",), "text": ("docs/http.md",)},
}
"""By test file: which kinds of blocks of which pages it checks. It takes them from here, by `checked_by`."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Its path below the root."""
    line: int
    language: str
    text: str
    why_not: str
    """Why nothing checks it, as the page says."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """Its language; of Python, what it is for."""
        if self.language in SHELL:
            return "shell"
        if self.language != "python":
            return self.language
        if re.search(r"^(?:async )?def test_", self.text, re.MULTILINE):
            return "test"
        return "program" if "async def main(" in self.text else "python"


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """All of a page, in order."""
    text, name = page.read_text("utf-8"), str(page.relative_to(ROOT))
    return tuple(
        Block(
            name,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            textwrap.dedent(found["text"]),
            found["why"] or "",
        )
        for found in _FENCE.finditer(text)
    )


def all_blocks() -> list[Block]:
    """Of all pages that people write."""
    return [block for page in PAGES if page != WRITTEN for block in blocks_of(page)]


def checked_by(test_file: str, page: str = "") -> list[Block]:
    """The blocks that a test file (`__file__`) is answerable for, in order; `page`: those of one page alone."""
    pages_of = CHECKED[str(Path(test_file).relative_to(ROOT))]
    return [
        block
        for block in all_blocks()
        if block.page in pages_of.get(block.kind, ()) and block.page.startswith(page) and not block.why_not
    ]
