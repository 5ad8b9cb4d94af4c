"""`pie adapter`: the LoRA adapters of the models that the daemon has loaded. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.adapter import add, listing, remove
from pie_cli.groups import add_group


def register(app: typer.Typer) -> None:
    add_group(app, adapter, (listing, add, remove))


def adapter() -> None:
    """Load LoRA adapters into a running model, look at them, and take them away."""
