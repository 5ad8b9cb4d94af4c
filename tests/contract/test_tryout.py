"""`pie model check --run`: a few greedy tokens of a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pie_engine.driver.tryout import try_out
from pie_engine.errors import ModelError
from tests import models


def test_a_model_that_gives_no_distribution_is_told(tmp_path: Path) -> None:
    folder = models.write_tokenizer(models.write_checkpoint(tmp_path / "model"))
    assert try_out(folder, "hello", 4, dtype="float32")["num_tokens"] == 4
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": float("nan")}))
    with pytest.raises(ModelError, match="NaN"):
        try_out(folder, "hello", 4, dtype="float32")
