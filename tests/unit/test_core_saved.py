"""Saving contexts and opening them: KV that goes to the disk and comes back instead of being computed."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load
from safetensors.numpy import save as dump

from pie_engine.core.save import MAX_BEHIND
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    OpenProcess,
    Release,
    Restore,
    Save,
    Truncate,
)
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.manifest import Manifest
from tests.unit.core_rig import RANDOM, Rig
from tests.unit.test_core_prefix import cached_tokens, computed

PROMPT = "Once upon a time there was a context. " * 2
MODEL = "test-model"


@pytest.fixture
def saved(tmp_path: Path) -> SavedContexts:
    return SavedContexts(tmp_path)


def save(rig: Rig, ctx: int, name: str, meta: str = "") -> int:
    op = rig.new_id()
    rig.send(Save(op, ctx, name, meta))
    wait(rig)
    return op


def wait(rig: Rig) -> None:
    """Until nothing runs and nothing is on its way to or from the disk."""
    end = time.monotonic() + 20
    rig.run()
    while rig.core.has_disk_work:
        assert time.monotonic() < end
        time.sleep(0.001)
        rig.run()


def opened(rig: Rig, saved: SavedContexts, name: str, *, pid: str = "p1", seed: int = 1) -> int:
    """As a host does it."""
    ctx = rig.new_id()
    tokens = saved.read("", MODEL, name).tokens
    rig.send(CreateContext(ctx, pid, seed), Append(ctx, tokens), Restore(ctx, name))
    return ctx


def restart(saved: SavedContexts, **options: object) -> Rig:
    """Another core: nothing is in its pages."""
    return Rig(saved=saved, **options)  # type: ignore[arg-type]


def test_a_saved_context_goes_on_in_another_core_without_being_computed(saved: SavedContexts):
    rig, alone = Rig(saved=saved), Rig()
    ctx = rig.context(PROMPT)
    assert rig.heard[save(rig, ctx, "story")].is_flushed
    again = restart(saved)
    op = again.generate(opened(again, saved, "story"), sampler=RANDOM, max_tokens=20)
    wait(again)
    assert computed(again) == 20
    assert again.driver.num_pages_written > 0
    assert cached_tokens(again, op) == len(PROMPT) - 1
    same = alone.generate(alone.context(PROMPT), sampler=RANDOM, max_tokens=20)
    alone.run()
    assert again.heard[op].ids == alone.heard[same].ids


def test_what_was_generated_and_what_has_not_been_computed_is_saved_too(saved: SavedContexts):
    rig = Rig(saved=saved)
    ctx = rig.context(PROMPT)
    rig.generate(ctx, max_tokens=9)
    rig.run()
    rig.send(Append(ctx, [7, 8, 9]))
    save(rig, ctx, "story", "what was said")
    manifest = saved.read("", MODEL, "story")
    assert (manifest.tokens, manifest.meta) == (rig.tokens(ctx), "what was said")
    again = restart(saved)
    op = again.flush(opened(again, saved, "story"))
    wait(again)
    assert again.heard[op].is_flushed
    assert computed(again) == 1


def test_the_context_goes_on_while_it_is_written_and_after(saved: SavedContexts):
    rig = Rig(saved=saved)
    ctx = rig.context(PROMPT)
    save(rig, ctx, "story")
    op = rig.generate(ctx, max_tokens=5)
    rig.run()
    assert len(rig.heard[op].ids) == 5
    assert saved.read("", MODEL, "story").tokens == rig.tokenizer.encode(PROMPT)


def test_a_part_of_what_was_opened_and_forks_of_it_use_the_saved_kv(saved: SavedContexts):
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    again = restart(saved, prefix_cache="off")
    ctx = opened(again, saved, "story")
    again.send(Truncate(ctx, 30), Append(ctx, again.tokenizer.encode("but then")))
    child = again.fork(ctx, 20)
    ops = [again.generate(ctx, max_tokens=1), again.generate(child, max_tokens=1)]
    wait(again)
    assert [cached_tokens(again, op) for op in ops] == [30, 19]
    assert computed(again) == len("but then") + 1


def test_pages_that_were_given_up_are_read_again(saved: SavedContexts):
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    again = restart(saved, num_pages=24)
    ctx = opened(again, saved, "story")
    again.flush(ctx)
    wait(again)
    again.flush(again.context("z" * 90))
    wait(again)
    assert again.num_computed(ctx) == 0
    before = computed(again)
    op = again.generate(ctx, max_tokens=1)
    wait(again)
    assert again.heard[op].finish == "length"
    assert computed(again) - before == 1


def test_what_is_in_the_pages_already_is_not_read(saved: SavedContexts):
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    written = rig.driver.num_pages_written
    op = rig.generate(opened(rig, saved, "story"), max_tokens=1)
    wait(rig)
    assert rig.heard[op].finish == "length"
    assert rig.driver.num_pages_written == written


def test_kv_that_is_damaged_or_gone_is_computed(saved: SavedContexts, tmp_path: Path):
    rig = Rig(saved=saved)
    for name in ("damaged", "gone", "replaced"):
        save(rig, rig.context(PROMPT), name)
    again = restart(saved, prefix_cache="off")
    contexts = [opened(again, saved, name) for name in ("damaged", "gone", "replaced")]
    blob = next(tmp_path.rglob(saved.read("", MODEL, "damaged").blob))
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    saved.delete("", MODEL, "gone")
    save(rig, rig.context("something else"), "replaced")
    ops = [again.generate(ctx, max_tokens=4) for ctx in contexts]
    wait(again)
    assert computed(again) == 3 * (len(PROMPT) + 3)
    assert len({tuple(again.heard[op].ids) for op in ops}) == 1
    assert all(cached_tokens(again, op) == 0 for op in ops)


def test_who_waits_for_the_disk_lets_others_run_and_says_so(saved: SavedContexts, monkeypatch: pytest.MonkeyPatch):
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    again = restart(saved)
    is_slow = True
    read_blob = saved.read_blob

    def slowly(*args: object) -> bytes:
        while is_slow:
            time.sleep(0.001)
        return read_blob(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(saved, "read_blob", slowly)
    waiting = again.generate(opened(again, saved, "story"), max_tokens=2)
    other = again.generate(again.context("abc"), max_tokens=2)
    again.run()
    assert again.heard[other].finish == "length"
    assert waiting not in again.heard
    assert again.core.stats().processes[0].state == "waiting: disk"
    is_slow = False
    wait(again)
    assert again.heard[waiting].finish == "length"


def test_a_process_that_ends_while_it_saves_or_opens_leaves_nothing(saved: SavedContexts):
    rig = Rig(saved=saved)
    rig.send(OpenProcess("p2", "test"))
    ctx = rig.context(PROMPT, pid="p2")
    rig.send(Save(rig.new_id(), ctx, "story"))
    rig.step(2)
    rig.send(CloseProcess("p2"))
    wait(rig)
    assert rig.core.pool.num_free == rig.core.pool.num_pages
    assert saved.read("", MODEL, "story").tokens == rig.tokenizer.encode(PROMPT)
    again = restart(saved)
    again.generate(opened(again, saved, "story"))
    again.step()
    again.send(CloseProcess("p1"))
    wait(again)
    assert again.core.pool.num_free == again.core.pool.num_pages


def test_a_save_that_is_called_off_is_answered_so(saved: SavedContexts):
    rig = Rig(saved=saved)
    op = rig.new_id()
    rig.send(Save(op, rig.context(PROMPT), "story"))
    rig.stop(op)
    wait(rig)
    assert rig.heard[op].error is not None
    assert rig.heard[op].error.code == "cancelled"


def test_a_released_context_fails_its_save(saved: SavedContexts):
    rig = Rig(saved=saved)
    ctx, op = rig.context(PROMPT), rig.new_id()
    rig.send(Save(op, ctx, "story"), Release(ctx))
    wait(rig)
    assert rig.heard[op].error is not None


class Held(SavedContexts):
    """Writes when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = Event()

    def write(self, *args: Any, **fields: Any) -> Manifest:
        assert self.go.wait(20)
        return super().write(*args, **fields)


def save_behind(rig: Rig, ctx: int, name: str) -> int:
    op = rig.new_id()
    rig.send(Save(op, ctx, name, durable=False))
    rig.run()
    return op


def test_a_save_that_need_not_be_durable_is_answered_before_it_is_written(tmp_path: Path):
    saved = Held(tmp_path)
    rig = Rig(saved=saved)
    ctx = rig.context(PROMPT)
    assert rig.heard[save_behind(rig, ctx, "story")].is_flushed
    assert saved.list("", MODEL) == []
    # What is written is what there was.
    rig.send(Truncate(ctx, 3), Release(ctx))
    saved.go.set()
    wait(rig)
    assert saved.read("", MODEL, "story").tokens == rig.tokenizer.encode(PROMPT)


def test_what_goes_wrong_behind_is_told_after_the_answer(saved: SavedContexts):
    rig = Rig(saved=saved, saved_contexts_mb=0)
    op = save_behind(rig, rig.context(PROMPT), "story")
    wait(rig)
    heard = rig.heard[op]
    assert (heard.is_flushed, heard.error) == (True, None)
    assert heard.save_failed is not None
    assert (heard.save_failed.pid, heard.save_failed.name) == ("p1", "story")
    assert heard.save_failed.error.code == "disk_limit"


def test_only_some_saves_are_answered_before_they_are_written(tmp_path: Path):
    saved = Held(tmp_path)
    rig = Rig(saved=saved)
    ops = [save_behind(rig, rig.context(PROMPT), f"story {index}") for index in range(MAX_BEHIND + 2)]
    assert [rig.heard[op].is_flushed if op in rig.heard else False for op in ops] == [True] * MAX_BEHIND + [False] * 2
    saved.go.set()
    wait(rig)
    assert all(rig.heard[op].is_flushed for op in ops)


def test_kv_of_another_shape_is_computed_again(saved: SavedContexts):
    """A file that was imported has been made by anybody."""
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    manifest = saved.read("", MODEL, "story")
    pages = load(saved.read_blob("", MODEL, manifest))
    for changed in (
        {name: part[1:] for name, part in pages.items()},
        {name: part[:, 1:] if part.ndim > 1 else part.astype(np.uint8) for name, part in pages.items()},
        {f"{name}-2": part for name, part in pages.items()},
    ):
        saved.write(
            "", MODEL, "story", dump(changed), model_id=manifest.model_id, page_size=manifest.page_size,
            tokens=manifest.tokens, meta="", quota_bytes=1 << 20,
        )  # fmt: skip
        again = restart(saved)
        op = again.generate(opened(again, saved, "story"), max_tokens=1)
        wait(again)
        assert again.heard[op].finish == "length"
        assert computed(again) == len(PROMPT)


@pytest.mark.parametrize(
    ("prompt", "name", "code", "says"),
    [
        ("", "story", "invalid_input", "the context is empty"),
        ("abc", "", "invalid_input", "cannot be the name"),
        ("abc", "a\nb", "invalid_input", "cannot be the name"),
        ("abc", "n" * 65, "invalid_input", "cannot be the name"),
        ("x" * 1000, "story", "disk_limit", "of 0.0 MiB"),
    ],
)
def test_what_cannot_be_saved_is_refused(saved: SavedContexts, prompt: str, name: str, code: str, says: str):
    rig = Rig(saved=saved, saved_contexts_mb=0 if code == "disk_limit" else 10)
    error = rig.heard[save(rig, rig.context(prompt), name)].error
    assert error is not None
    assert error.code == code
    assert says in error.message
    assert saved.list("", MODEL) == []


def test_a_core_without_a_folder_says_so():
    rig = Rig()
    error = rig.heard[save(rig, rig.context("abc"), "story")].error
    assert error is not None
    assert error.code == "unsupported"


def test_users_do_not_see_each_others_names(saved: SavedContexts):
    rig = Rig(saved=saved)
    rig.send(OpenProcess("a", "test", "ann"))
    save(rig, rig.context("abc", pid="a"), "story")
    assert [manifest.name for manifest in saved.list("ann", MODEL)] == ["story"]
    assert saved.list("bob", MODEL) == []


def test_a_pass_after_opening_sees_the_same_distribution(saved: SavedContexts):
    rig = Rig(saved=saved)
    save(rig, rig.context(PROMPT), "story")
    again, alone = restart(saved), Rig()
    op = again.forward(opened(again, saved, "story"), [5, 6], Sampler(), 4)
    same = alone.forward(alone.context(PROMPT), [5, 6], Sampler(), 4)
    wait(again)
    alone.run()
    assert again.heard[op].forwarded is not None
    assert alone.heard[same].forwarded is not None
    assert again.heard[op].forwarded.probed == alone.heard[same].forwarded.probed
