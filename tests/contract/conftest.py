"""The drivers that every test of the contract runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_engine.driver.base import Driver
from pie_engine.driver.create import load_driver
from tests import models

PAGE = 16
NUM_PAGES = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    models.write_tokenizer(folder)
    return models.write_checkpoint(folder)


@pytest.fixture(params=["cpu compiled float32", "cpu compiled bfloat16", "cpu torch float32", "fake"])
def new_driver(request: pytest.FixtureRequest, folder: Path) -> Callable[[], Driver]:
    name, *how = request.param.split()
    options: Any = {"kernels": how[0], "dtype": how[1]} if how else {}
    return lambda: load_driver(name, folder, num_threads=1, page_size=PAGE, **options)


@pytest.fixture
def driver(new_driver: Callable[[], Driver]) -> Iterator[Driver]:
    loaded = new_driver()
    loaded.allocate_kv(NUM_PAGES)
    yield loaded
    loaded.close()
