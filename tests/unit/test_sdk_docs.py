"""Every program of the pages on the SDK runs as it stands, and the public surface is what page and package say."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

import inferlet
from inferlet.testing import run_inferlet
from tests.pages import checked_by

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sdk.md").read_text("utf-8")
PROGRAMS = checked_by(__file__)


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_every_program_on_the_pages_runs(block, monkeypatch):
    stops = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: stops.append(block))
    scope: dict[str, object] = {"__name__": "page"}
    exec(compile(block.text, str(block), "exec", dont_inherit=True), scope)
    first = "praise" if "Grammar.choice" in block.text else "A bad story."
    needed = {"prompt": "Hello!"} if "(prompt: str)" in block.text else {}
    run_inferlet(
        scope["main"],
        needed,
        replies=[first, "Two", "Three", "Four"],
        inbox=["Ann", None],
        secrets={"API_KEY": "hush"},
        children={"worker": lambda question: f"{question} Because."},
    )
    assert len(stops) == block.text.count("breakpoint()")


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
