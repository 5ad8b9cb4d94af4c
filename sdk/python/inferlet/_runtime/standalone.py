"""The guest application of a standalone component: one program, with its compiled code, inside the component.

`pie build` runs componentize-py on this module as on `app`, with one module more beside the package: `pie_program`,
whose `BUNDLE` is what `app` would be handed. What is passed as a bundle at run time is ignored.

While it is built it reads the signature of `main`, which imports the program, over a fake host. What came of that stays
in memory, as `rehearsal.report_of` writes it, where the host finds it: `{"signature": …}` or `{"error": …}`. A program
that can never start ends the build, and there the report goes to stderr; one that could not be imported because it
wants something of its host or of its data files does not.
"""

from __future__ import annotations

from inferlet._runtime import stdlib

stdlib.import_all()

import sys  # noqa: E402

import pie_program  # type: ignore[import-not-found]  # noqa: E402
from componentize_py_types import Err  # noqa: E402
from wit_world import exports  # noqa: E402

from inferlet._loop import HostLoop  # noqa: E402
from inferlet._runtime import program, ready  # noqa: E402
from inferlet._runtime.rehearsal import rehearse, report_of  # noqa: E402

_stderr = sys.stderr
_loop = HostLoop()
ready.prepare(_loop)
_bundle, _report = rehearse(pie_program.BUNDLE, lambda bundle: program.describe(bundle, _loop))
del pie_program.BUNDLE
_report_text = report_of(_report)
if _report.get("error", {}).get("code") == "invalid_program":
    print(_report_text.decode(), file=_stderr, flush=True)
    sys.exit("the program cannot start")


class Program(exports.Program):
    """What every inferlet exports."""

    def describe(self, bundle: str) -> str:
        """The signature of `main` as JSON."""
        return ready.result(program.describe(_bundle, _loop), Err)

    def run(self, bundle: str, input: str) -> str:
        """The value of `main` as JSON."""
        return ready.result(program.run(_bundle, input, _loop), Err)


_kept = ready.settle()
