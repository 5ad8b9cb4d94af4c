"""One program: load its bundle, find `main`, read or call it, and report what came of it."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from inferlet._loop import HostLoop
from inferlet._plain_json import dump_json
from inferlet._runtime import failures, heap, hot_code, places
from inferlet._runtime.importer import BundleImporter
from inferlet._runtime.warmup import WarmUp
from inferlet.errors import InvalidProgram
from inferlet.signature import Signature

Outcome = tuple[bool, str]
"""Whether it went well, and JSON: the value, or an `ErrorInfo`."""
NewImporter = Callable[[dict[str, str], dict[str, str]], BundleImporter]


def describe(bundle: str, loop: HostLoop) -> Outcome:
    """The signature of the program's `main`."""
    return _guarded(bundle, loop, lambda main: Signature.of(main).to_json())


def run(
    bundle: str,
    arguments: str,
    loop: HostLoop,
    new_importer: NewImporter = BundleImporter,
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Outcome:
    """The value of the program's `main` for these arguments (a JSON object). `on_error`: told before all is over."""
    return _guarded(bundle, loop, lambda main: _call(main, arguments, loop), new_importer, on_error)


def prepare(loop: HostLoop) -> WarmUp:
    """Do once, while the runtime is built, what the first run would otherwise pay for."""
    sys.path[:] = []
    sys.path_importer_cache.clear()
    places.passed_modules()
    warm_up = WarmUp(lambda bundle, arguments: run(bundle, arguments, loop))
    warm_up.specialise(lambda bundle: describe(bundle, loop))
    hot_code.gather(warm_up.touch, heap.fill)
    warm_up.specialise(lambda bundle: describe(bundle, loop))
    return warm_up


def _guarded(
    bundle: str,
    loop: HostLoop,
    use: Callable[[Callable[..., Any]], str],
    new_importer: NewImporter = BundleImporter,
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Outcome:
    importer = None
    try:
        fresh_state()
        parts = json.loads(bundle)
        importer = new_importer(parts["files"], parts.get("code") or {})
        importer.install()
        if parts.get("watched"):
            places.install(importer.files, loop)
        main = load_main(importer, parts["entry"])
        _compile(importer, parts.get("compiled") or ())
        return True, use(main)
    except BaseException as error:
        on_error(error)
        owns = importer.owns if importer else (lambda filename: False)
        return False, failures.report(error, owns, is_terminated=loop.is_terminated)
    finally:
        places.uninstall(loop)
        _flush()


def fresh_state() -> None:
    """Undo what the build froze: seeds and times are of this instance."""
    random.seed()
    logging._startTime = time.time_ns()  # type: ignore[attr-defined]


def _compile(importer: BundleImporter, paths: Sequence[str]) -> None:
    """Modules that nothing may have imported yet. Raises `InvalidProgram` for the first that does not compile."""
    for path in paths:
        try:
            importer.code_of(path)
        except SyntaxError as error:
            raise failures.syntax_failure(error) from error


def load_main(importer: BundleImporter, entry: str) -> Callable[..., Any]:
    """The program's `main`. Raises `InvalidProgram` when the entry module or its `main` is not as it has to be."""
    entry = entry.removesuffix(".py").replace("/", ".")
    if importer.path_of("inferlet") is not None:
        path = importer.path_of("inferlet")
        raise InvalidProgram(f"the file {path} hides the package `inferlet`", hint="give it another name")
    if importer.path_of(entry) is None:
        raise InvalidProgram(f"there is no entry module `{entry}`", hint=_entry_hint(importer.module_names))
    return _checked_main(_import(importer, entry), entry)


def _entry_hint(names: list[str]) -> str:
    return f"the program has: {', '.join(names[:10])}; set `entry` in pie.toml" if names else "add a file main.py"


def _import(importer: BundleImporter, entry: str) -> Any:
    try:
        return importlib.import_module(entry)
    except SyntaxError as error:
        raise failures.syntax_failure(error) from error
    except ImportError as error:
        raise failures.import_failure(error, importer.module_names) from error
    except SystemExit as stop:
        file, what = importer.path_of(entry), failures.exit_message(stop)
        raise InvalidProgram(f"{file} left before `main` could run: {what}", hint="call `sys.exit` in `main`") from None


def _checked_main(module: Any, entry: str) -> Callable[..., Any]:
    main = getattr(module, "main", None)
    file = module.__spec__.origin
    if main is None:
        raise InvalidProgram(f"{file} has no function `main`", hint=_main_hint(module))
    if not callable(main):
        what = f"`main` in {file} is of type {type(main).__name__}, not a function"
        raise InvalidProgram(what, hint="write `async def main(…):`")
    if not inspect.iscoroutinefunction(main):
        raise InvalidProgram(f"`main` in {file} is not async", hint="write `async def main(…):`")
    return main


def _main_hint(module: Any) -> str:
    import difflib

    functions = [name for name, value in vars(module).items() if inspect.iscoroutinefunction(value)]
    near = difflib.get_close_matches("main", functions, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else "add `async def main(…):`"


def _call(main: Callable[..., Any], arguments: str, loop: HostLoop) -> str:
    values = Signature.of(main).bind(json.loads(arguments or "{}"))
    try:
        value = loop.run(main(**values))
    except SystemExit as stop:
        value = _exit_value(stop)
    return _dump_result(value, main)


def _dump_result(value: Any, main: Callable[..., Any]) -> str:
    try:
        return dump_json(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{_place(main)} returned something that is not JSON: {error}") from None


def _place(main: Callable[..., Any]) -> str:
    """`main` with its file and line."""
    code = getattr(inspect.unwrap(main), "__code__", None)
    return f"`main` ({code.co_filename}, line {code.co_firstlineno})" if code is not None else "`main`"


def _exit_value(stop: SystemExit) -> None:
    """`sys.exit()` is a return without a value; with a text or another status than 0 it is a failure."""
    if stop.code not in (None, 0):
        raise stop


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            return  # at the output limit, which the host reports by itself
