"""A fake host under plain Python, for the SDK's own tests: no sandbox, no engine, nothing but the SDK.

Programs are tested with `pie_testing`, in the sandbox (docs/testing-programs.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferlet import _transport
from inferlet._loop import HostLoop
from inferlet._plain_json import dump_json
from inferlet.signature import Signature
from inferlet.testing._children import Program
from inferlet.testing._generation import Reply
from inferlet.testing._host import FakeHost

__all__ = ["FakeHost", "Reply", "Result", "run_inferlet"]


@dataclass
class Result:
    """What an inferlet did."""

    value: Any
    """What `main` returned, as JSON carries it."""
    messages: list[Any]
    """What it sent to the client."""
    logs: list[tuple[str, str]]
    """(level, message) of `inferlet.log`."""
    prompts: list[str]
    """The whole text of the context at each `generate`."""


def run_inferlet(
    main: Callable[..., Coroutine[Any, Any, Any]],
    input: dict[str, Any] | None = None,
    *,
    replies: Sequence[Reply] = (),
    inbox: Sequence[Any] = (),
    adapters: Sequence[str] = (),
    secrets: Mapping[str, str] | None = None,
    children: Mapping[str, Program] | None = None,
) -> Result:
    """Run `main` with these arguments against a fake model and client.

    Args:
        main: the inferlet's `main`.
        input: its arguments, checked and converted as the engine does.
        replies: what the model writes, one for each `generate`.
        inbox: messages that the client has sent; None last, as `pie run` does at the end of its input.
        adapters: names of LoRA adapters that are loaded.
        secrets: what `runtime.secret` gives, by name.
        children: what stands in for the programs that it launches, by name: functions of their input.

    Raises what `main` raises; `Deadlock` when it waits for a message that never comes.
    """
    host = FakeHost(replies=replies, inbox=inbox, adapters=adapters, secrets=secrets, children=children)
    before = _transport.connect(host)
    try:
        loop = HostLoop()
        try:
            value = loop.run(main(**Signature.of(main).bind(input or {})))
        finally:
            loop.close()
    finally:
        _transport.connect(before)
    return Result(json.loads(dump_json(value)), host.messages, host.logs, host.prompts)
