"""The guest application of the shared runtime component.

How it is built (the host does it; nothing here builds):

    componentize-py -d sdk/wit -w inferlet componentize inferlet._runtime.app -p sdk/python -o runtime.wasm

    app module     `inferlet._runtime.app`
    search path    the folder that holds the package `inferlet`, and nothing else
    world          `inferlet` of sdk/wit, with the default names of its bindings (`wit_world`)
    digest         every `*.py` below the package, in any order that is stable

How it is run:

    describe(bundle) and run(bundle, input), JSON as in sdk/wit; one call per instance, which is then thrown away.
    describe("")  may be called before that one, on an instance that is kept ready. It runs a small program that calls
                  nothing of the host, so that the memory which every program touches is there already. Returns "".
    bundle    {"name", "version", "entry", "files": {path: text}, "code": {path: what runtime.store-code got}}, and
              "watched": true for one that says with `runtime.at` where each of its calls comes from
    data      the folder with the files that are not `.py`, read-only, preopened as `/` (the working folder). It may
              be filled after the instance was made; none is needed without data files.
    WASI      clocks and random numbers as usual; no environment, arguments or standard streams are needed.
"""

from __future__ import annotations

from inferlet._runtime import stdlib

stdlib.import_all()

from componentize_py_types import Err  # noqa: E402
from wit_world import exports  # noqa: E402

from inferlet._loop import HostLoop  # noqa: E402
from inferlet._runtime import program, ready  # noqa: E402

_loop = HostLoop()
_warm_up = ready.prepare(_loop)


class Program(exports.Program):
    """What every inferlet exports."""

    def describe(self, bundle: str) -> str:
        """The signature of `main` as JSON; with an empty bundle, warm the instance up."""
        if bundle:
            return ready.result(program.describe(bundle, _loop), Err)
        _warm_up.touch()
        return ""

    def run(self, bundle: str, input: str) -> str:
        """The value of `main` as JSON."""
        return ready.result(program.run(bundle, input, _loop), Err)


_kept = ready.settle()
