"""The shipped programs pass their tests twice: as source, and as the components that `pie build` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_client import Bundle, pack

CACHE = Path(__file__).parents[1] / "build" / "test-cache"


@pytest.fixture(params=["source", pytest.param("component", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def program(request: pytest.FixtureRequest) -> Path | Bundle:
    """The program in whose folder the test lies."""
    folder = Path(request.path).parents[1]
    return folder if request.param == "source" else _built(folder)


def _built(folder: Path) -> Bundle:
    from pie_engine.builder.build import build
    from pie_engine.builder.python import PythonBuilder
    from pie_engine.builder.record import bundle_of_component

    built = build(PythonBuilder(), pack(folder), CACHE, lambda text, fraction: None)
    return bundle_of_component(built.component, built.record)
