"""The shipped programs pass their tests twice: as source, and as the components that `pie build` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_client import Bundle, pack
from pie_testing.built import Builds


@pytest.fixture(params=["source", pytest.param("component", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def program(request: pytest.FixtureRequest) -> Path | Bundle:
    """The program in whose folder the test lies."""
    folder = Path(request.path).parents[1]
    return folder if request.param == "source" else _built(folder)


def _built(folder: Path) -> Bundle:
    return Builds(lambda text: None).component_of(pack(folder))
