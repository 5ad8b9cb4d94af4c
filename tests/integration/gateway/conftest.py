"""Gateways whose host only speaks the protocol."""

from __future__ import annotations

import pytest

from pie_client import PieClient
from tests.integration.fake_engine import FakeEngine
from tests.integration.raw_http import RawHttp


@pytest.fixture(scope="package")
async def engine():
    """One for the tests that leave it as it was."""
    running = FakeEngine()
    client = await running.start()
    yield running
    await client.close()
    running.remove()


@pytest.fixture
async def client(engine):
    async with PieClient(home=engine.home) as connected:
        yield connected


@pytest.fixture
async def own():
    """Makes engines that a test may break: `await own(**settings)` gives (engine, client)."""
    made = []

    async def make(**settings):
        engine = FakeEngine(**settings)
        made.append((engine, await engine.start()))
        return made[-1]

    yield make
    for engine, client in made:
        await client.close()
        engine.remove()


@pytest.fixture
def http(engine):
    return RawHttp(engine)
