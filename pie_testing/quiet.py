"""What `pie test` keeps to itself: who tests a program has not chosen the other plugins of this environment."""

from __future__ import annotations

import warnings

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """pytest-asyncio warns of a setting of its own. pytest takes the filter away again after all have said theirs."""
    warnings.filterwarnings("ignore", message='(?s).*"asyncio_default_fixture_loop_scope" is unset')
