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
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what can be repaired without asking, and look again.")
    ] = False,
) -> int:
    """Check the installation, the daemon and what happened lately. Exit code 1 where there is a problem."""
    from pie_cli.checks import all_findings
    from pie_cli.checks.finding import show_finding

    findings = run_async(all_findings())
    if fix and any(finding.repair for finding in findings):
        from pie_cli.checks.repairs import repair

        # Once each, also where several findings have the same remedy.
        for each in {finding.repair: finding for finding in findings if finding.repair}.values():
            console.note(repair(each))
        findings = run_async(all_findings())
    if as_json:
        _show_json(findings)
    else:
        for finding in findings:
            show_finding(finding)
    has_problem = any(finding.severity == "problem" for finding in findings)
    return exits.PROGRAM_FAILED if has_problem else exits.OK


def _show_json(findings: list[Finding]) -> None:
    import msgspec

    console.data_line(msgspec.json.encode({"findings": findings}).decode())
