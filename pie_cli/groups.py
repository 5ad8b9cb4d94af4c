"""Commands with verbs of their own, like `pie model pull`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import typer


def add_group(app: typer.Typer, command: Callable[[], None], verbs: Sequence[ModuleType]) -> None:
    """`command` by its name and docstring, with the verbs in the order of its help."""
    group = typer.Typer(name=command.__name__, rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(command)
    for verb in verbs:
        verb.register(group)
    app.add_typer(group)
