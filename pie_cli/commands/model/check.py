"""`pie model check`: is a model whole, and does it run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console, exits

if TYPE_CHECKING:
    from pathlib import Path

    from pie_cli.checks.finding import Finding
    from pie_engine.config import EngineConfig


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a folder or a hub id that was pulled.")],
    run: Annotated[bool, typer.Option("--run", help="Load it, too, and generate a few tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Check a model: tensors, checksums, tokenizer and chat template. Exit code 1 where there is a problem."""
    from pie_cli.checks.finding import show_finding
    from pie_cli.models import folder_of, require_modules
    from pie_engine.config import load_config

    config = load_config()
    folder = folder_of(model, config)
    require_modules("`pie model check`", "tokenizers", "jinja2", *(["torch"] if run else []))
    findings = _findings(folder, config, with_run=run)
    if as_json:
        import msgspec

        console.data_line(msgspec.json.encode({"folder": str(folder), "findings": findings}).decode())
    else:
        for finding in findings:
            show_finding(finding)
    has_problem = any(finding.severity == "problem" for finding in findings)
    return exits.PROGRAM_FAILED if has_problem else exits.OK


def _findings(folder: Path, config: EngineConfig, *, with_run: bool) -> list[Finding]:
    from pie_cli.checks.finding import Finding
    from pie_engine.hub.check import check_model

    with console.steps() as steps:
        results = check_model(folder, steps.show)
        findings = [Finding(result.check, result.severity, result.message, result.fix) for result in results]
        if with_run and all(finding.severity != "problem" for finding in findings):
            steps.show("running it")
            findings.append(_run(folder))
    return findings


def _run(folder: Path) -> Finding:
    """A few tokens, in a process of its own: this one has no torch."""
    import json
    import subprocess
    import sys

    from pie_cli.checks.finding import Finding

    command = [sys.executable, "-m", "pie_engine.driver.tryout", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return Finding("run", "problem", f"running it failed: {last[0]}")
    if "error" in said:
        return Finding("run", "problem", said["error"]["message"], said["error"].get("hint", ""))
    text = json.dumps(said["text"], ensure_ascii=False)
    return Finding(
        "run",
        "ok",
        f"{said['num_tokens']} tokens in {said['dtype']} at {said['ms_per_token']:.1f} ms each: {text}",
    )
