"""Every program of the pages on the SDK runs as it stands, and the public surface is what page and package say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import inferlet
from inferlet.testing import run_inferlet

DOCS = Path(__file__).parents[2] / "docs"
OTHERS = (
    *("kv-cache.md", "market.md", "sampling.md", "adapters.md"),
    *("index.md", "first-inferlet.md", "tools.md", "from-the-original-pie.md"),
)
PAGE = (DOCS / "sdk.md").read_text("utf-8")
PAGES = [PAGE, *((DOCS / name).read_text("utf-8") for name in OTHERS)]
BLOCKS = re.findall(r"```python\n(.*?)```", "".join(PAGES), re.DOTALL)
PROGRAMS = [source for source in BLOCKS if not source.startswith("def test_")]


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source[:60].replace("\n", " "))
def test_every_program_on_the_pages_runs(source):
    scope: dict[str, object] = {"__name__": "page"}
    exec(compile(source, "docs", "exec", dont_inherit=True), scope)
    first = "praise" if "Grammar.choice" in source else "A bad story."
    run_inferlet(scope["main"], replies=[first, "Two", "Three", "Four"], inbox=["Ann", None])


def test_there_are_programs_on_the_page():
    assert len(PROGRAMS) >= 8


def test_the_public_names_are_sorted_and_documented():
    assert inferlet.__all__ == sorted(inferlet.__all__)
    for name in inferlet.__all__:
        thing = getattr(inferlet, name)
        if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), name


@pytest.mark.parametrize("name", [n for n in inferlet.__all__ if inspect.isclass(getattr(inferlet, n))])
def test_public_methods_are_documented(name):
    cls = getattr(inferlet, name)
    for attribute, value in inspect.getmembers(cls):
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{attribute}"


def test_errors_on_the_page_are_all_there():
    for name in inferlet.__all__:
        thing = getattr(inferlet, name)
        if inspect.isclass(thing) and issubclass(thing, Exception) and name != "InvalidProgram":
            assert f"`{name}`" in PAGE or f"inferlet.{name}`" in PAGE, name
