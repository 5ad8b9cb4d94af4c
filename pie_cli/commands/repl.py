"""`pie repl`: a prompt with a live context."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("repl")(repl)


def repl(model: Annotated[str, typer.Option(help="A loaded model; left out, the default one.")] = "") -> int:
    """Open a Python prompt with a live context, `ctx`, on the daemon's model.

    `await` works at the prompt, and what is awaitable need not be awaited: `ctx.generate()` shows the reply as it
    comes. `top()` lists the likeliest next tokens, `tokens()` those that are there. Ctrl-C interrupts a reply, Ctrl-D
    leaves and frees everything.
    """
    from pie_cli.debugging.repl import repl as open_prompt

    return open_prompt(model)
