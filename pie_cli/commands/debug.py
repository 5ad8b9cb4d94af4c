"""`pie debug`, as typer knows it: its words are the program's, as those of `pie run` are."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class DebugCommand(TyperCommand):
    """Its help, and its words as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return list(args)

    def get_help(self, ctx: Any) -> str:
        from pie_cli.help import debug_help

        return debug_help()


def register(app: typer.Typer) -> None:
    app.command("debug", cls=DebugCommand)(debug)


def debug(ctx: typer.Context) -> int:
    """Run a program in an ordinary Python, where breakpoints and debuggers work."""
    from pie_cli.debugging.debug import debug_words

    return debug_words(ctx.args)
