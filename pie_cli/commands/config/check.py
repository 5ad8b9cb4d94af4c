"""`pie config check`: would a daemon start with it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie_cli import console, exits


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Another file than the user's own.")] = None,
) -> int:
    """Read the settings as a daemon does, look for the models that they name, and say what is wrong.

    Exit code 2 where something is.
    """
    import os

    from pie_cli.checks import addresses, models
    from pie_cli.checks.finding import show_finding
    from pie_engine.config import config_file, load_config
    from pie_engine.errors import InvalidConfig

    environ = dict(os.environ)
    if file is not None:
        if not file.exists():
            raise InvalidConfig(f"there is no file `{file}`", hint="without FILE the user's own settings are checked")
        environ["PIE_CONFIG"] = str(file)
    config = load_config(environ=environ)
    addresses.check(config)
    path = config_file(environ)
    console.note(f"{path}: its settings are allowed" if path.exists() else f"{path} is not there: the defaults hold")
    findings = models.check(config)
    for finding in findings:
        show_finding(finding)
    return exits.USAGE if any(finding.severity == "problem" for finding in findings) else exits.OK
