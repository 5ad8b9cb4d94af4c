"""What any driver refuses, and what needs none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_engine.driver.base import Driver, Row
from pie_engine.driver.create import load_driver
from pie_engine.errors import InvalidConfig, OutOfPages, PieError, Unsupported
from pie_engine.protocol.sampling import GREEDY, Probes
from tests.contract.conftest import NUM_PAGES


def test_an_empty_step_is_no_step(driver: Driver) -> None:
    assert driver.execute([]) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row([], 0, [0], GREEDY), "without tokens"),
        (Row([1], 0, [NUM_PAGES], GREEDY), "page id"),
        (Row([1], 0, [-1], GREEDY), "page id"),
        (Row([1] * 17, 0, [0], GREEDY), "pages for"),
        (Row([1], -1, [0], GREEDY), "position"),
        (Row([1], 100_000, list(range(64)) * 300, GREEDY), "positions"),
        (Row([320], 0, [0], GREEDY), "token id"),
        (Row([-1], 0, [0], GREEDY), "token id"),
        (Row([1], 0, [0], GREEDY, probes=Probes(top_k=100_000)), "top_k"),
        (Row([1, 2], 0, [0], GREEDY, mask=b"\xff", draft_uniforms=[0.0]), "0 masks for 1 drafts"),
        (Row([1, 2], 0, [0], GREEDY, draft_uniforms=[0.0], draft_masks=[b"\xff"]), "1 masks for 0 drafts"),
        (Row([1], 0, [0], GREEDY, draft_uniforms=[0.0]), "drafts alone"),
    ],
)
def test_a_row_that_is_our_bug_is_an_assertion(driver: Driver, row: Row, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        driver.execute([row])


def test_two_rows_never_write_one_page(driver: Driver) -> None:
    with pytest.raises(AssertionError, match="two rows write"):
        driver.execute([Row([1], 0, [3], GREEDY), Row([2, 3], 0, [3], GREEDY)])


@pytest.mark.parametrize("pair", [(0, NUM_PAGES), (-1, 0)])
def test_copies_stay_inside_the_pool(driver: Driver, pair: tuple[int, int]) -> None:
    with pytest.raises(AssertionError, match="page id"):
        driver.copy_pages([pair])


def test_kv_comes_before_steps_and_once(new_driver: Callable[[], Driver]) -> None:
    driver = new_driver()
    with pytest.raises(AssertionError, match="allocate_kv"):
        driver.execute([Row([1], 0, [0], GREEDY)])
    driver.allocate_kv(4)
    with pytest.raises(AssertionError, match="once"):
        driver.allocate_kv(4)


def test_too_many_pages_are_refused_with_the_numbers(new_driver: Callable[[], Driver]) -> None:
    driver = new_driver()
    with pytest.raises(OutOfPages, match=r"1000000000 KV pages .* MiB, \d+ MiB are free") as refused:
        driver.allocate_kv(10**9)
    assert "pages fit" in refused.value.hint
    driver.allocate_kv(4)


@pytest.mark.parametrize(
    ("name", "script", "says"),
    [("cuda", None, "not part of this build"), ("tpu", None, "no driver 'tpu'"), ("cpu", "x.json", "takes no script")],
)
def test_drivers_that_are_not_there(folder: Path, name: str, script: str | None, says: str) -> None:
    with pytest.raises(Unsupported, match=says) as refused:
        load_driver(name, folder, script=script)
    assert "fake" in refused.value.hint


@pytest.mark.parametrize("options", [{"page_size": 0}, {"num_threads": -1}])
def test_numbers_out_of_range_are_named(folder: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(options))):
        load_driver("cpu", folder, **options)


def test_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(Unsupported, match="float8"):
        load_driver("cpu", folder, dtype="float8")


def test_a_folder_that_is_not_there(tmp_path: Path, new_driver: Callable[[], Driver]) -> None:
    with pytest.raises(PieError, match="none"):
        load_driver("cpu", tmp_path / "none")
    with pytest.raises(PieError, match="none"):
        load_driver("fake", tmp_path / "none")


def test_the_control_plane_side_needs_no_torch() -> None:
    modules = [
        "pie_engine.driver.base",
        "pie_engine.driver.create",
        "pie_engine.driver.fake",
        "pie_engine.model.chat",
        "pie_engine.model.checkpoint",
        "pie_engine.model.tokenizer",
        "pie_engine.sampling.random",
    ]
    code = (
        f"import sys, {', '.join(modules)}; sys.exit(' '.join({{'torch', 'transformers'}} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
