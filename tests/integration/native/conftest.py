"""An engine in this process, whose model is scripted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pie_engine.config import HostSection
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.embedded import Embedded
from tests.integration.native.runs import FAKE


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    with Embedded(HostSection(warm_instances=1, cancel_grace_s=0.2)) as running:
        yield running


@pytest.fixture
def fake(engine: Embedded) -> Embedded:
    engine.load(FAKE, FakeScript(replies=(Reply("Hello there!"),)))
    return engine
