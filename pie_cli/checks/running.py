"""What a core runs its model with."""

from __future__ import annotations

from typing import Any

from pie_cli.checks.finding import Finding, title_of
from pie_engine.protocol.http import MemberView


def check(member: MemberView) -> Finding | None:
    """None of what runs no model on the CPU, or is not there yet."""
    detail: dict[str, Any] = member.detail
    kernels, num_threads = detail.get("kernels"), detail.get("num_threads")
    if not kernels:
        return None
    what = "compiled kernels" if kernels == "compiled" else "PyTorch"
    text = f"{title_of(member.role, member.name)} runs on {what}, {num_threads} thread{'' if num_threads == 1 else 's'}"
    reason = detail.get("one_by_one")
    if not reason:
        return Finding("running", "ok", text)
    message = f"{text}, one token at a time, which is slow: it is `deterministic`, and {reason}"
    fix = "set `num_threads = 1` of the model" if num_threads != 1 else "unset `deterministic` of the model"
    return Finding("running", "warning", message, fix)
