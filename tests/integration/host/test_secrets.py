"""Secrets in the sandbox: a program reads its own, and none of them leaves it."""

from __future__ import annotations

import json

from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_host import Launch, Secrets

KEY = 'sk-"0123"\\é'
SOURCE = """
from inferlet import log, runtime, session

async def main(fail: bool = False) -> dict:
    key = runtime.secret("API_KEY")
    print(f"with {key}")
    session.send({"headers": [key]})
    log.info(f"called with {key}")
    if fail:
        raise ValueError(f"{key} was refused")
    return {"length": len(key), "key": key}
"""
ABSENT = """
from inferlet import runtime

async def main() -> str:
    return runtime.secret("OTHER")
"""


def events(inline, source, secrets, **arguments):
    bundle = Bundle(Manifest(name="p", secrets=tuple(secrets)), {"main.py": source})
    pid = f"secret-{len(inline.reports)}"
    order = Launch(pid, "ann", bundle.digest, bundle, json.dumps(arguments), Secrets(secrets))
    assert "sk-" not in repr(order)
    inline.host.receive_order(order)
    inline.run_to_end()
    return inline.events(pid)


def test_its_value_leaves_the_program_in_no_event(inline):
    seen = events(inline, SOURCE, {"API_KEY": KEY})
    assert ("stdout", "with [secret API_KEY]\n") in seen
    assert ("message", {"headers": ["[secret API_KEY]"]}) in seen
    assert ("log", {"level": "info", "message": "called with [secret API_KEY]"}) in seen
    assert seen[-1] == ("return", {"length": len(KEY), "key": "[secret API_KEY]"})


def test_nor_in_an_error(inline):
    kind, error = events(inline, SOURCE, {"API_KEY": KEY}, fail=True)[-1]
    assert (kind, error["message"]) == ("error", "ValueError: [secret API_KEY] was refused")
    assert "0123" not in error["traceback"]


def test_one_that_the_manifest_does_not_name_is_not_there(inline):
    kind, error = events(inline, ABSENT, {"API_KEY": KEY})[-1]
    assert (kind, error["code"]) == ("error", "not_found")
    assert "this program has no secret `OTHER`" in error["message"]
