"""`pie doctor`: look for what is wrong, and say how to put it right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console, exits
from pie_cli.client import run_async

if TYPE_CHECKING:
    from pie_cli.checks.finding import Finding


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Check the installation, the daemon and what happened lately. Exit code 1 where there is a problem."""
    from pie_cli.checks import all_findings

    findings = run_async(all_findings())
    if as_json:
        _show_json(findings)
    else:
        for finding in findings:
            _show(finding)
    has_problem = any(finding.severity == "problem" for finding in findings)
    return exits.PROGRAM_FAILED if has_problem else exits.OK


def _show(finding: Finding) -> None:
    styles = {"ok": console.GREEN, "note": console.DIM, "warning": console.YELLOW, "problem": console.RED}
    label = console.paint_data(f"{finding.severity:>7}", styles[finding.severity])
    console.data_line(f"{label}  {finding.message}")
    if finding.fix:
        console.data_line(f"{'fix':>7}  {finding.fix}")


def _show_json(findings: list[Finding]) -> None:
    import msgspec

    console.data_line(msgspec.json.encode({"findings": findings}).decode())
