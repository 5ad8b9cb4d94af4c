"""Programs against the SDK's fake host, under plain Python."""

from __future__ import annotations

from inferlet import _transport
from inferlet.testing import FakeHost, run_inferlet


def run(main, **kwargs):
    return run_inferlet(main, **kwargs).value


def host() -> FakeHost:
    return _transport.host
