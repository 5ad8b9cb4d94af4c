"""`pie test`: the tests of programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

PYTEST_ARGS = "pytest_args"


class EngineKind(StrEnum):
    """As the plugin's `--pie-engine` has them."""

    embedded = "embedded"
    daemon = "daemon"


def register(app: typer.Typer) -> None:
    app.command("test", cls=TestCommand)(run_tests)


class TestCommand(TyperCommand):
    """What stands behind `--` is pytest's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own, dashes, rest = args, "--", []
        if dashes in args:
            at = args.index(dashes)
            own, rest = args[:at], args[at + 1 :]
        ctx.meta[PYTEST_ARGS] = rest
        return super().parse_args(ctx, own)


def run_tests(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET]...", help="Folders of programs, or their test files.")
    ] = None,
    keyword: Annotated[str, typer.Option("-k", metavar="EXPRESSION", help="Only tests whose names match.")] = "",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a report in JUnit XML.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Write golden outputs instead of comparing them.")] = False,
    replay: Annotated[
        list[Path] | None, typer.Option("--replay", metavar="FILE", help="A recording that must replay as it was.")
    ] = None,
    engine: Annotated[
        EngineKind, typer.Option("--engine", help="Run programs here, or on a daemon of their own.")
    ] = EngineKind.embedded,
    model: Annotated[str, typer.Option("--model", help="For tests that name none; by default the scripted one.")] = "",
    built: Annotated[bool, typer.Option("--built", help="Run programs as `pie build` builds them.")] = False,
) -> int:
    """Run the tests of programs with pytest.

    Without TARGET those of the program in this folder. What stands behind `--` goes to pytest: `pie test -- -x --pdb`.
    """
    from pie_cli.testing import Wanted, run_wanted

    return run_wanted(
        Wanted(
            targets=targets or [],
            keyword=keyword,
            junit=junit,
            update=update,
            replays=replay or [],
            engine=engine.value,
            model=model,
            built=built,
            pytest_args=ctx.meta.get(PYTEST_ARGS, []),
        )
    )
