"""Inline hosts, on both runners: what hosts use, and the fallback behind the same seam."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pie_engine.host.engine import new_engine
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.runtime import load_runtime
from pie_engine.host.threads import ThreadRunner
from tests.integration.host.inline_host import CACHE, InlineHost


@pytest.fixture(scope="package")
def engine():
    return new_engine()


@pytest.fixture(scope="package")
def component(engine):
    return load_runtime(engine, CACHE, lambda _text, _fraction: None)


@pytest.fixture(params=[FibreRunner, ThreadRunner], ids=["fibres", "threads"])
def inline(request, engine, component, tmp_path) -> Iterator[InlineHost]:
    inline = InlineHost(request.param, engine, component, tmp_path)
    yield inline
    inline.close()
