"""The shipped programs pass their tests twice: as source, and as the components that `pie build` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_client import Bundle, pack


@pytest.fixture(params=["source", pytest.param("component", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def program(request: pytest.FixtureRequest) -> Path | Bundle:
    """The program in whose folder the test lies."""
    folder = Path(request.path).parents[1]
    return folder if request.param == "source" else _built(folder)


def _built(folder: Path) -> Bundle:
    """Compiled as well: that takes longer than a test waits for its program."""
    from pie_engine.builder.build import build
    from pie_engine.builder.python import PythonBuilder
    from pie_engine.builder.record import bundle_of_component
    from pie_engine.config import load_paths
    from pie_engine.host.components import load_component
    from pie_engine.host.engine import new_engine

    cache = load_paths().cache
    built = build(PythonBuilder(), pack(folder), cache, lambda text, fraction: None)
    load_component(new_engine(), cache / "components", built.component)
    return bundle_of_component(built.component, built.record)
