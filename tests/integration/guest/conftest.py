"""The guest runtime in a real sandbox, over the SDK's fake host: no host process, no model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.integration.guest.sandbox import Sandbox


@pytest.fixture(scope="package")
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
def run(sandbox):
    """The value of a program; fails when it fails."""

    def run_(program, arguments=None, **kwargs):
        outcome = sandbox.call("run", program, arguments, **kwargs)
        assert outcome.is_ok, outcome.value
        return outcome.value

    return run_


@pytest.fixture
def fail(sandbox):
    """The error of a program; fails when it does not fail."""

    def fail_(program, arguments=None, **kwargs):
        outcome = sandbox.call("run", program, arguments, **kwargs)
        assert not outcome.is_ok, outcome.value
        return SimpleNamespace(**{"hint": "", "traceback": "", **outcome.value})

    return fail_
