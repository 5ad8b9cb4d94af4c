"""Contexts, passes and streams as programs see them, against a core that is only a list of messages."""

from __future__ import annotations

import pytest

from tests.unit.host_operations.world import World


@pytest.fixture
def world() -> World:
    return World()
