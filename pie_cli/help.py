"""Help texts that are made from signatures: of a program, and of `pie run` itself."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence

from pie_cli import options, schema
from pie_engine.protocol.program import Parameter, Signature

WIDTH = 100
Row = tuple[str, str]

RUN_TEXT = """\
Usage: pie run [OPTIONS] TARGET [TEXT] [PROGRAM OPTIONS]

  Run a program and stream what it says.

  TARGET is a folder with a pie.toml, a .py file, what `pie build` made, or, where nothing of that is
  here, the name of a program that was uploaded; a note on stderr then says which. What is run from
  here is not uploaded.

  The parameters of `main` are options: `pie run TARGET --help` shows them. Where exactly one required
  parameter is a `str`, its value can be given without the option's name; `-` reads it from stdin. Where
  none is, that is so of the first parameter, if it is a `str`.
  Options of `pie run` stand before TARGET, or after it where the program has none of that name.

  A daemon is started in the background where none runs. When stdin is a pipe or a file, or with -i,
  each of its lines is sent to the program as a message, and `null` at its end. At a terminal that is
  so, too, where a TEXT that may be left out is: what you type is a conversation, and Ctrl-D ends it.
  Ctrl-C ends the program, or the daemon while that starts; twice, it leaves at once.

  With --watch it stays: each save of a file of the program ends the run that there is and begins
  another, with the same input. On a terminal `r` runs it again, `e` opens $EDITOR at the last error,
  and `q` quits. An error, also in pie.toml, is shown, and the next save is waited for. Files of
  --record and --trace are those of the last run.

  Messages that are text are written to stdout as they are, other values as JSON, one a line; then
  what the program returns, unless that is null or the text of its messages. All else is on stderr.
"""

DEBUG_TEXT = """\
Usage: pie debug [OPTIONS] TARGET [TEXT] [PROGRAM OPTIONS]

  Run a program in an ordinary Python, where breakpoints and debuggers work.

  TARGET is a folder with a pie.toml or a .py file; the parameters of `main` are options, as for `pie run`.

  The program runs here, and its calls go to the daemon's model as always: contexts, KV and replies are
  the real ones. `breakpoint()` opens pdb, which has stdin for itself. Memory, processor time and wall
  time are not limited, so there is as much time at a breakpoint as you like. `pie ps`, `pie logs` and
  `pie kill` know the process as any other. Ctrl-C ends the program, and pdb when it runs on from there.
"""


def option_row(parameter: Parameter, *, negatives: bool = True) -> Row:
    """An option as two columns: how it is typed, and what it means."""
    left = options.spelled(parameter.name)
    if not schema.is_flag(parameter.schema):
        left += f" {schema.metavar(parameter.schema)}"
    elif negatives:
        left += f" / {options.negated(parameter.name)}"
    return left, " ".join(filter(None, [str(parameter.schema.get("description", "")), _facts(parameter)]))


def own_rows(verb: options.Verb = options.RUN) -> list[Row]:
    """The options of a verb itself."""
    rows = []
    for parameter in verb.own:
        left, right = option_row(parameter, negatives=parameter.name in options.TRISTATE)
        short = "".join(f"{s}, " for s, long in options.SHORT.items() if long == options.spelled(parameter.name))
        rows.append((short + left, right))
    return rows


def run_help() -> str:
    """What `pie run --help` shows."""
    return f"{RUN_TEXT}\nOptions:\n{columns(own_rows())}"


def debug_help() -> str:
    """What `pie debug --help` shows."""
    from pie_cli.debugging.debug import DEBUG

    return f"{DEBUG_TEXT}\nOptions:\n{columns(own_rows(DEBUG))}"


def program_help(target: str, name: str, signature: Signature, verb: options.Verb = options.RUN) -> str:
    """What `pie run TARGET --help` shows, or another verb."""
    text = options.text_parameter(signature)
    positional = f" [{text.name.upper()}]" if text else ""
    parts = [f"Usage: pie {verb.name} {shlex.quote(target)} [OPTIONS]{positional}"]
    if doc := _without_arguments(signature.doc):
        parts.append(textwrap.indent(doc, "  "))
    if text:
        parts.append(f"  {text.name.upper()} is the value of {options.spelled(text.name)}; `-` reads it from stdin.")
    rows = [option_row(parameter) for parameter in signature.parameters]
    if rows:
        parts.append(f"Options of {name}:\n{columns(rows)}")
    taken = {parameter.name for parameter in signature.parameters}
    own = [row for row, parameter in zip(own_rows(verb), verb.own, strict=True) if parameter.name not in taken]
    parts.append(f"Options of pie {verb.name}:\n{columns(own)}")
    return "\n\n".join(parts)


def _without_arguments(doc: str) -> str:
    """A docstring up to `Args:`, which stands with the options."""
    return doc.partition("\nArgs:")[0].strip()


def columns(rows: Sequence[Row]) -> str:
    """Two columns, the right one wrapped; a row whose left side is too long has its text below."""
    left_width = max((len(left) for left, _ in rows if len(left) <= WIDTH // 3), default=0)
    return "\n".join(_wrapped(left, right, left_width + 4) for left, right in rows)


def _wrapped(left: str, right: str, indent: int) -> str:
    start = f"  {left}".ljust(indent)
    if len(start) > indent:
        start += "\n" + " " * indent
    lines = textwrap.wrap(right, WIDTH - indent) or [""]
    return (start + ("\n" + " " * indent).join(lines)).rstrip()


def _facts(parameter: Parameter) -> str:
    facts = []
    if parameter.required:
        facts.append("required")
    elif parameter.default is not False and parameter.default not in (None, "", []):
        facts.append(f"default: {schema.word(parameter.default)}")
    if schema.is_repeatable(parameter.schema):
        facts.append("repeatable")
    return f"[{', '.join(facts)}]" if facts else ""
