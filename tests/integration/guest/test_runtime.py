"""What the runtime brings, and its memory."""

from __future__ import annotations

import ast
from pathlib import Path

from inferlet._runtime import stdlib

# The standard library.


def test_every_promised_module_is_there_and_works(run):
    program = f"""
    import importlib

    async def main():
        missing = []
        for name in {list(stdlib.MODULES)!r}:
            try:
                importlib.import_module(name)
            except ImportError as error:
                missing.append(f"{{name}}: {{error}}")
        return missing
    """
    assert run(program) == []


def test_modules_do_what_they_promise(run):
    program = """
    import csv, datetime, decimal, fractions, gzip, hashlib, io, json, re, sqlite3, statistics, string, struct, tomllib
    import xml.etree.ElementTree as ET
    import zlib

    async def main():
        base = sqlite3.connect(":memory:")
        base.execute("create table t (n int)")
        base.executemany("insert into t values (?)", [(1,), (2,)])
        return [
            base.execute("select sum(n) from t").fetchone()[0],
            hashlib.sha256(b"x").hexdigest()[:8],
            gzip.decompress(gzip.compress(b"abc")).decode(),
            tomllib.loads("a = 1")["a"],
            ET.fromstring("<a><b>1</b></a>").find("b").text,
            list(csv.reader(["a,b"])),
            str(decimal.Decimal("0.1") + decimal.Decimal("0.2")),
            statistics.mean([1, 2, 3]),
            "ß".encode("latin-1").hex(),
            datetime.datetime(2024, 2, 29).strftime("%A"),
        ]
    """
    assert run(program) == [3, "2d711642", "abc", 1, "1", [["a", "b"]], "0.3", 2, "df", "Thursday"]


# Speed: measured, not asserted; `-s` shows it.


def test_a_warm_no_op(sandbox):
    program = "async def main() -> int:\n    return 1\n"
    code = sandbox.call("run", program).host.stored_code
    for is_warm in (False, True):
        outcomes = [sandbox.call("run", program, code=code, is_warm=is_warm) for _ in range(20)]
        assert {outcome.value for outcome in outcomes} == {1}
        print(f"no-op, warmed up {is_warm}: {min(outcome.run_ms for outcome in outcomes):.2f} ms at best")


def test_the_contract_at_the_top_of_the_app_is_there():
    source = (Path(stdlib.__file__).parent / "app.py").read_text()
    assert "componentize-py" in (ast.get_docstring(ast.parse(source)) or "")


# Memory.


def test_what_was_there_before_the_program_is_immortal_and_what_is_new_lies_together(run):
    program = """
    import asyncio, json, sys
    from inferlet import Context

    (kept,) = [module._kept for module in list(sys.modules.values()) if hasattr(module, "_kept")]
    lasting = kept[0]

    class New:
        pass

    async def main() -> dict:
        pieces = [bytes(size) for size in range(1, 2000, 7)]
        return {
            "old": [name for name, value in vars(asyncio).items() if not sys._is_immortal(value)],
            "code": sys._is_immortal(json.dumps.__code__),
            "new": sys._is_immortal(New),
            "num_lasting": len(lasting.objects),
            "in_holes": sum(id(piece) < lasting.end for piece in pieces) / len(pieces),
        }
    """
    seen = run(program)
    assert seen["num_lasting"] > 50_000
    assert len(seen["old"]) < 5, seen["old"]
    assert seen["code"]
    assert not seen["new"]
    assert seen["in_holes"] < 0.2, "the slots between old objects are filled"


def test_the_code_that_every_launch_runs_lies_together(run):
    program = """
    import asyncio, json
    from inferlet import Context, _loop, _session, signature

    async def main() -> list:
        hot = [_loop.HostLoop.run, _session.Session.send, signature.Signature.bind, Context.user, json.loads,
               asyncio.BaseEventLoop.run_forever, asyncio.runners._cancel_all_tasks]
        return [id(function.__code__) for function in hot]
    """
    *hot, cold = run(program)
    assert max(hot) - min(hot) < 1 << 20
    assert not min(hot) < cold < max(hot), "nothing else moved"
