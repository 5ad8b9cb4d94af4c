"""Tests of inferlets with pytest: docs/testing-programs.md is the guide.

Importing this loads nothing of the engine: pytest loads the plugin in every project where Pie is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pie_engine.errors import PieError
    from pie_testing.fake import FakeModel
    from pie_testing.golden import Golden
    from pie_testing.result import Event, Result, ToolCall
    from pie_testing.runs import Run, Running, Start

__all__ = ["Event", "FakeModel", "Golden", "PieError", "Result", "Run", "Running", "Start", "ToolCall"]

_PLACES = {
    "Event": "pie_testing.result",
    "FakeModel": "pie_testing.fake",
    "Golden": "pie_testing.golden",
    "PieError": "pie_engine.errors",
    "Result": "pie_testing.result",
    "Run": "pie_testing.runs",
    "Running": "pie_testing.runs",
    "Start": "pie_testing.runs",
    "ToolCall": "pie_testing.result",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
