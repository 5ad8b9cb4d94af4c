"""Every causal language model of Transformers, against Transformers, and against what docs/models.md says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_engine.model.families import FAMILIES
from tests.causal_lms import WALKED, documented, how_it_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", WALKED)
def test_it_runs_as_documented(architecture: str, tmp_path: Path) -> None:
    how = how_it_runs(architecture, tmp_path)
    assert how == ("family" if architecture in FAMILIES else documented().get(architecture, "not documented"))


def test_the_table_names_only_what_there_is() -> None:
    assert set(documented()) <= set(WALKED) - set(FAMILIES)
