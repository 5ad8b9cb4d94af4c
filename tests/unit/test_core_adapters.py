"""Adapters in the core: who has one, who shares pages, what fits, and who may not lose one."""

from __future__ import annotations

import pytest

from pie_engine.driver.fake_script import FakeScript
from pie_engine.errors import Busy, InvalidInput, LimitExceeded, NotFound
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.to_core import CloseProcess, OpenProcess, Release, Restore, Search
from pie_engine.store.contexts import SavedContexts
from tests.adapter_files import tensors_of, write_files, write_small
from tests.unit.core_rig import PAGE_SIZE, Rig
from tests.unit.test_core_saved import save, wait

PROMPT = "x" * (3 * PAGE_SIZE + 1)


@pytest.fixture
def rig(tmp_path):
    folders = {name: str(write_small(tmp_path / name, value)) for name, value in (("one", 1.0), ("two", 2.0))}
    return Rig(adapters=folders)


def ids_of(rig: Rig) -> dict[str, str]:
    return {"": "", **{adapter.name: adapter.adapter_id for adapter in rig.core.facts.adapters.all}}


def replies(rig: Rig, names: list[str]) -> list[list[int]]:
    """Of contexts with the same prompt, side by side."""
    ids = ids_of(rig)
    ops = [rig.generate(rig.context(PROMPT, adapter_id=ids[name]), max_tokens=12) for name in names]
    rig.run()
    return [rig.heard[op].ids for op in ops]


def test_contexts_with_different_adapters_run_in_one_batch_and_share_nothing(rig):
    none, one, two, again = replies(rig, ["", "one", "two", "one"])
    assert len({tuple(ids) for ids in (none, one, two)}) == 3
    assert one == again
    # The three pages of the prompt: the fourth context has found those of the second.
    assert rig.core.stats().num_page_hits == 3


def test_a_prompt_is_found_under_its_own_adapter_only(rig):
    replies(rig, ["one"])
    before = rig.core.stats().num_page_hits
    replies(rig, ["two"])
    assert rig.core.stats().num_page_hits == before
    replies(rig, ["one"])
    assert rig.core.stats().num_page_hits == before + 3


def test_a_fork_keeps_the_adapter(rig):
    ctx = rig.context(PROMPT, adapter_id=ids_of(rig)["one"])
    child = rig.fork(ctx, len(PROMPT))
    op = rig.generate(child, max_tokens=12)
    rig.run()
    assert [rig.heard[op].ids] == replies(rig, ["one"])


def test_the_beams_of_a_search_have_the_adapter_of_its_context(rig):
    ctx = rig.context(PROMPT, adapter_id=ids_of(rig)["one"])
    op = rig.new_id()
    rig.send(Search(op, ctx, BeamPlan(1, max_tokens=12)))
    rig.run()
    assert [rig.heard[op].searched[0].ids] == replies(rig, ["one"])


def test_two_names_of_one_content_are_loaded_once(rig, tmp_path):
    before = rig.core.facts.adapters.num_bytes
    rig.core.add_adapter("alias", write_small(tmp_path / "alias", 1.0))
    assert rig.core.facts.adapters.num_bytes == before
    rig.context(PROMPT, adapter_id=ids_of(rig)["one"])
    rig.core.remove_adapter("one")
    assert replies(rig, ["alias"])


def test_an_adapter_in_use_is_not_removed(rig):
    ctx = rig.context(PROMPT, adapter_id=ids_of(rig)["one"])
    with pytest.raises(Busy, match=r"adapter `one` of test-model is in use by p1 \(1 context\)"):
        rig.core.remove_adapter("one")
    rig.send(Release(ctx))
    rig.core.remove_adapter("one")
    with pytest.raises(NotFound, match="no adapter called `one`"):
        rig.core.remove_adapter("one")
    assert replies(rig, ["two"])


def test_the_end_of_a_process_frees_its_adapter(rig):
    rig.send(OpenProcess("p2", "test"))
    rig.context(PROMPT, pid="p2", adapter_id=ids_of(rig)["one"])
    with pytest.raises(Busy, match="p2"):
        rig.core.remove_adapter("one")
    rig.send(CloseProcess("p2"))
    rig.core.remove_adapter("one")


def test_a_name_is_replaced_when_nobody_uses_it(rig, tmp_path):
    ctx = rig.context(PROMPT, adapter_id=ids_of(rig)["one"])
    other = write_small(tmp_path / "other", 3.0)
    with pytest.raises(Busy):
        rig.core.add_adapter("one", other)
    rig.core.add_adapter("one", tmp_path / "one")  # the same content: nothing happens
    rig.send(Release(ctx))
    before = ids_of(rig)["one"]
    rig.core.add_adapter("one", other)
    assert ids_of(rig)["one"] != before
    with pytest.raises(KeyError):
        rig.driver.unload_adapter(before)


def test_a_context_with_an_adapter_that_is_gone_fails_when_it_is_used(rig):
    gone = ids_of(rig)["one"]
    rig.core.remove_adapter("one")
    op = rig.flush(rig.context(PROMPT, adapter_id=gone))
    rig.run()
    assert rig.heard[op].error.code == "not_found"
    assert gone in rig.heard[op].error.message


def test_adapters_have_a_budget(rig, tmp_path):
    most = 1 << 20
    rank = most // 4 // (2 * 256)
    settings = {"r": rank}
    large = write_files(tmp_path / "large", tensors_of(256, 256, rank=rank, num_layers=1), settings)
    with pytest.raises(LimitExceeded, match=r"adapter `large` needs 1\.0 MiB; 0\.0 of the 1\.0 MiB") as caught:
        rig.core.add_adapter("large", large)
    assert caught.value.code == "memory_limit"
    for name in ("one", "two"):
        rig.core.remove_adapter(name)
    rig.core.add_adapter("large", large)
    assert rig.core.facts.adapters.num_bytes == most


def test_a_saved_context_comes_back_under_its_adapter_only(tmp_path):
    folders = {"one": str(write_small(tmp_path / "one")), "two": str(write_small(tmp_path / "two", 2.0))}
    saved = SavedContexts(tmp_path / "saved")
    rig = Rig(adapters=folders, saved=saved)
    ids = ids_of(rig)
    save(rig, rig.context(PROMPT, adapter_id=ids["one"]), "story")
    manifest = saved.read("", "test-model", "story")
    assert (manifest.adapter, manifest.adapter_id) == ("one", ids["one"])
    wanted = replies(rig, ["one"])

    for name, num_written in (("one", 3), ("two", 0)):
        other = Rig(adapters=folders, saved=saved, prefix_cache="off")
        ctx = other.context(PROMPT, adapter_id=ids[name])
        other.send(Restore(ctx, "story"))
        op = other.generate(ctx, max_tokens=12)
        wait(other)
        assert other.driver.num_pages_written == num_written
        assert ([other.heard[op].ids] == wanted) == (name == "one")


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".hidden", "x" * 65, "ä"])
def test_names_are_checked(rig, tmp_path, name):
    with pytest.raises(InvalidInput, match="cannot be the name of an adapter"):
        rig.core.add_adapter(name, write_small(tmp_path / "new"))


def test_a_configured_adapter_that_cannot_be_loaded_keeps_the_core_from_starting(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        Rig(adapters={"one": str(tmp_path / "nowhere")})


def test_a_draft_model_guesses_for_a_context_with_an_adapter_as_it_does_without(rig, tmp_path):
    """It has no adapters: it guesses worse, and the reply is that of the adapter."""
    folders = {name: str(write_small(tmp_path / name, value)) for name, value in (("one", 1.0), ("two", 2.0))}
    guessing = Rig(adapters=folders, draft=FakeScript())
    plan = {"max_tokens": 12, "speculation": Speculation("model", 8)}
    names = ["", "one", "two"]
    ops = [guessing.generate(guessing.context(PROMPT, adapter_id=ids_of(guessing)[name]), **plan) for name in names]
    guessing.run()
    assert [guessing.heard[op].ids for op in ops] == replies(rig, names)
    accepted = [guessing.heard[op].usage.accepted_tokens for op in ops]
    assert accepted[0] > 5
    assert min(guessing.heard[op].usage.drafted_tokens for op in ops) > 0
