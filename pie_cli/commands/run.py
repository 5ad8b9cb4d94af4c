"""`pie run`, as typer knows it: which options there are depends on the program, so its words are left alone."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class RunCommand(TyperCommand):
    """Its help, and its words as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return list(args)

    def get_help(self, ctx: Any) -> str:
        from pie_cli.help import run_help

        return run_help()


def register(app: typer.Typer) -> None:
    app.command("run", cls=RunCommand)(run)


def run(ctx: typer.Context) -> int:
    """Run a program and stream what it says."""
    from pie_cli.launch import run_words

    return run_words(ctx.args)
