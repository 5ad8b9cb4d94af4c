"""Adapters as the core may rely on them, whichever driver runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_engine.driver.base import Driver, Row
from pie_engine.driver.create import load_driver
from pie_engine.driver.fake import FakeDriver
from pie_engine.errors import ModelError
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.protocol.sampling import GREEDY, Probes
from tests import models
from tests.adapter_files import write_small
from tests.adapters import write_adapter

PAGE = 16
PROMPT = [5 + 7 * i % 300 for i in range(29)]
NUM_STEPS = 12
DRIVERS = ["cpu compiled float32", "cpu compiled bfloat16", "cpu torch float32", "fake"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    models.write_tokenizer(folder)
    return models.write_checkpoint(folder)


@pytest.fixture(scope="module")
def adapters(folder: Path) -> list[AdapterFiles]:
    ranks = (4, 11)
    return [
        AdapterFiles.open(write_adapter(folder / f"adapter-{rank}", folder, seed=rank, r=rank, gain=1.0))
        for rank in ranks
    ]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    name, *how = request.param.split()
    options: Any = {"kernels": how[0], "dtype": how[1]} if how else {}
    loaded = load_driver(name, folder, num_threads=1, page_size=PAGE, **options)
    loaded.allocate_kv(64)
    yield loaded
    loaded.close()


def pages(number: int) -> list[int]:
    return list(range(4 * number, 4 * number + 4))


def step(driver: Driver, *rows: Row) -> list[int]:
    results = driver.execute(rows)
    assert all(result.error is None and result.token is not None for result in results)
    return [result.token for result in results if result.token is not None]


def generate(driver: Driver, adapter: str, number: int = 0, chunk: int = 100) -> list[int]:
    """Greedily, alone."""
    for at in range(0, len(PROMPT), chunk):
        [token] = step(driver, Row(PROMPT[at : at + chunk], at, pages(number), GREEDY, adapter=adapter))
    tokens = [token]
    for position in range(len(PROMPT), len(PROMPT) + NUM_STEPS):
        tokens += step(driver, Row(tokens[-1:], position, pages(number), GREEDY, adapter=adapter))
    return tokens


def test_each_adapter_says_something_else(driver: Driver, adapters: list[AdapterFiles]) -> None:
    plain = generate(driver, "")
    for files in adapters:
        assert driver.adapter_bytes(files) > 0
        driver.load_adapter(files)
    said = [generate(driver, files.adapter_id, number) for number, files in enumerate(adapters, 1)]
    assert len({tuple(tokens) for tokens in (plain, *said)}) == 3
    assert generate(driver, "", 3) == plain


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_batch_of_adapters_gives_each_row_what_it_gets_alone(
    driver: Driver, adapters: list[AdapterFiles], chunk: int
) -> None:
    for files in adapters:
        driver.load_adapter(files)
    ids = ["", adapters[0].adapter_id, adapters[1].adapter_id, "", adapters[0].adapter_id]
    alone = [generate(driver, adapter) for adapter in ids]
    for at in range(0, len(PROMPT), chunk):
        part = PROMPT[at : at + chunk]
        tokens = step(driver, *(Row(part, at, pages(i), GREEDY, adapter=adapter) for i, adapter in enumerate(ids)))
    said = [[token] for token in tokens]
    for position in range(len(PROMPT), len(PROMPT) + NUM_STEPS):
        rows = [Row(said[i][-1:], position, pages(i), GREEDY, adapter=adapter) for i, adapter in enumerate(ids)]
        for tokens, token in zip(said, step(driver, *rows), strict=True):
            tokens.append(token)
    assert said == alone


def test_probes_look_at_the_adapted_model(driver: Driver, adapters: list[AdapterFiles]) -> None:
    driver.load_adapter(adapters[0])
    rows = [
        Row(PROMPT, 0, pages(index), GREEDY, probes=Probes(top_k=3, hidden=True), adapter=adapter)
        for index, adapter in enumerate(("", adapters[0].adapter_id))
    ]
    plain, adapted = (result.probed for result in driver.execute(rows))
    # The fake draws its likeliest tokens by a hash from a few, so two adapters may agree on them.
    assert plain.top != adapted.top or isinstance(driver, FakeDriver)
    assert plain.hidden != adapted.hidden


def test_an_adapter_can_go_and_come_back(driver: Driver, adapters: list[AdapterFiles]) -> None:
    one, other = adapters
    driver.load_adapter(one)
    driver.load_adapter(one)
    said = generate(driver, one.adapter_id)
    driver.unload_adapter(one.adapter_id)
    with pytest.raises(AssertionError, match="is not loaded"):
        generate(driver, one.adapter_id)
    driver.load_adapter(other)
    driver.load_adapter(one)
    assert generate(driver, one.adapter_id) == said


def test_pages_go_out_and_come_back_under_their_adapter(driver: Driver, adapters: list[AdapterFiles]) -> None:
    adapter = adapters[0].adapter_id
    driver.load_adapter(adapters[0])
    [token] = step(driver, Row(PROMPT, 0, pages(0), GREEDY, adapter=adapter))
    kept = driver.read_pages(pages(0)[:2])
    driver.write_pages([9, 8], kept)
    driver.copy_pages([(9, 40), (8, 41)])
    rows = [
        Row([token], len(PROMPT), [*table, *pages(number)], GREEDY, adapter=adapter)
        for number, table in ((5, pages(0)[:2]), (6, [40, 41]))
    ]
    here, there = step(driver, rows[0]), step(driver, rows[1])
    assert here == there


def test_pages_of_another_adapter_are_noticed_by_the_fake(folder: Path, adapters: list[AdapterFiles]) -> None:
    driver = load_driver("fake", folder, page_size=PAGE)
    driver.allocate_kv(64)
    driver.load_adapter(adapters[0])
    [token] = step(driver, Row(PROMPT, 0, pages(0), GREEDY))
    with pytest.raises(AssertionError, match="holds the KV of another adapter"):
        step(driver, Row([token], len(PROMPT), pages(0), GREEDY, adapter=adapters[0].adapter_id))


def test_an_adapter_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    driver = load_driver("cpu", folder, num_threads=1, page_size=PAGE, kernels="torch")
    files = AdapterFiles.open(write_small(tmp_path))
    for refuse in (driver.adapter_bytes, driver.load_adapter):
        with pytest.raises(ModelError, match="has shape"):
            refuse(files)


def test_memory_is_what_is_said(folder: Path, adapters: list[AdapterFiles]) -> None:
    """In the dtype of the weights: the files of these are in fp32."""
    for dtype, share in (("float32", 1), ("bfloat16", 2)):
        driver = load_driver("cpu", folder, num_threads=1, page_size=PAGE, kernels="torch", dtype=dtype)
        assert driver.adapter_bytes(adapters[0]) == adapters[0].num_bytes // share
