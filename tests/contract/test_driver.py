"""What the core may rely on, whichever driver runs: the same tokens however the work is cut, placed and batched."""

from __future__ import annotations

import math
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pie_engine.driver.base import Driver, Row, Sample
from pie_engine.driver.create import load_driver
from pie_engine.errors import InvalidConfig, OutOfPages, PieError, Unsupported
from pie_engine.protocol.sampling import GREEDY, Probed, Probes, Sampler
from tests.contract.conftest import NUM_PAGES, PAGE

PROMPT = [5 + 7 * i % 300 for i in range(29)]
MIXED = Sampler(temperature=0.8, top_k=40, top_p=0.9)


def pages_for(num_tokens: int, first: int = 0, stride: int = 1) -> list[int]:
    return [first + stride * i for i in range(-(-num_tokens // PAGE))]


def prefill(driver: Driver, tokens: list[int], pages: list[int], start: int = 0, chunk: int = 1000) -> int:
    """Run `tokens` in chunks and return the greedy token after the last."""
    for at in range(0, len(tokens), chunk):
        part = tokens[at : at + chunk]
        is_last = at + chunk >= len(tokens)
        [result] = driver.execute([Row(part, start + at, pages, GREEDY if is_last else None)])
        assert result.error is None
        assert (result.token is not None) == is_last
    assert result.token is not None
    return result.token


def decode(driver: Driver, token: int, start: int, pages: list[int], count: int) -> list[int]:
    tokens = [token]
    for position in range(start, start + count):
        [result] = driver.execute([Row([tokens[-1]], position, pages, GREEDY)])
        assert result.token is not None
        tokens.append(result.token)
    return tokens


def test_capabilities_describe_the_model(driver: Driver) -> None:
    capabilities = driver.capabilities
    assert capabilities.page_size == PAGE
    assert capabilities.vocab_size == 320
    assert capabilities.max_context_tokens >= 64
    assert capabilities.page_bytes > 0
    assert capabilities.max_top_k >= 20
    assert capabilities.model_id


def test_the_model_id_is_the_same_every_time(new_driver: Callable[[], Driver]) -> None:
    assert new_driver().capabilities.model_id == new_driver().capabilities.model_id


@pytest.mark.parametrize("chunk", [1, 2, 5, 8, 28])
def test_chunked_prefill_gives_the_same_tokens(driver: Driver, chunk: int) -> None:
    whole = prefill(driver, PROMPT, pages_for(64))
    chunked = prefill(driver, PROMPT, pages_for(64, first=20), chunk=chunk)
    assert chunked == whole
    continued = decode(driver, whole, len(PROMPT), pages_for(64), 20)
    assert decode(driver, chunked, len(PROMPT), pages_for(64, first=20), 20) == continued


def test_decoding_is_prefilling_what_was_generated(driver: Driver) -> None:
    tokens = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 20)
    again = prefill(driver, [*PROMPT, *tokens[:-1]], pages_for(64, first=20))
    assert again == tokens[-1]


def test_the_order_of_pages_does_not_matter(driver: Driver) -> None:
    scattered = [63, 2, 40, 5, 61, 0, 17, 33]
    straight = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 20)
    first = prefill(driver, PROMPT, scattered, chunk=6)
    assert decode(driver, first, len(PROMPT), scattered, 20) == straight


def test_a_page_used_before_leaves_no_trace(driver: Driver) -> None:
    fresh = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 10)
    prefill(driver, list(range(10, 74)), pages_for(64))
    assert decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 10) == fresh


def test_a_batch_gives_each_row_what_it_gets_alone(driver: Driver) -> None:
    prompts = [PROMPT, PROMPT[:9], PROMPT[3:20], PROMPT[:1], list(range(30, 50))]
    tables = [pages_for(40, first=6 * i) for i in range(len(prompts))]
    alone = []
    for prompt, pages in zip(prompts, tables, strict=True):
        alone.append(decode(driver, prefill(driver, prompt, pages), len(prompt), pages, 10))
    results = driver.execute(
        [Row(prompt, 0, pages, GREEDY) for prompt, pages in zip(prompts, tables, strict=True)],
    )
    together = [[result.token] for result in results]
    for _ in range(10):
        rows = [
            Row([tokens[-1]], len(prompt) + len(tokens) - 1, pages, GREEDY)
            for prompt, tokens, pages in zip(prompts, together, tables, strict=True)
        ]
        for tokens, result in zip(together, driver.execute(rows), strict=True):
            tokens.append(result.token)
    assert together == alone


def test_chunks_and_decodes_share_a_step(driver: Driver) -> None:
    short, long = PROMPT[:9], PROMPT
    short_pages, long_pages = pages_for(40, first=0), pages_for(40, first=10)
    expected_short = decode(driver, prefill(driver, short, short_pages), len(short), short_pages, 3)
    expected_long = prefill(driver, long, long_pages)

    tokens = [prefill(driver, short, short_pages)]
    long_token = None
    for index, chunk in enumerate([(0, 10), (10, 11), (11, 29)]):
        step = [
            Row(long[slice(*chunk)], chunk[0], long_pages, GREEDY if chunk[1] == 29 else None),
            Row([tokens[-1]], len(short) + index, short_pages, GREEDY),
        ]
        chunk_result, decode_result = driver.execute(step)
        long_token = chunk_result.token
        tokens.append(decode_result.token)  # type: ignore[arg-type]
    assert tokens == expected_short
    assert long_token == expected_long


def test_very_different_lengths_share_a_step(driver: Driver) -> None:
    lengths = [2, 30, 200, 3, 90]
    tables = [list(range(sum(-(-(n + 1) // PAGE) for n in lengths[:i]), NUM_PAGES)) for i in range(len(lengths))]
    tables = [table[: -(-(length + 1) // PAGE)] for table, length in zip(tables, lengths, strict=True)]
    prompts = [[(3 * i + length) % 300 for i in range(length)] for length in lengths]
    firsts = [prefill(driver, prompt, pages) for prompt, pages in zip(prompts, tables, strict=True)]
    rows = [Row([token], length, pages, GREEDY) for token, length, pages in zip(firsts, lengths, tables, strict=True)]
    alone = [driver.execute([row])[0].token for row in rows]
    assert [result.token for result in driver.execute(rows)] == alone


def test_forks_share_the_pages_of_their_prefix(driver: Driver) -> None:
    shared, left, right = [0, 1], [2, 3, 4], [5, 6, 7]
    prefix = (PROMPT * 2)[: 2 * PAGE]
    prefill(driver, prefix, shared)
    branches = {"left": ([50, 51, 52], shared + left), "right": ([60, 61, 62], shared + right)}
    rows = [Row(tokens, len(prefix), pages, GREEDY) for tokens, pages in branches.values()]
    firsts = [result.token for result in driver.execute(rows)]
    for (tokens, pages), first in zip(branches.values(), firsts, strict=True):
        assert first is not None
        whole = [*prefix, *tokens]
        unshared = pages_for(60, first=20)
        expected = decode(driver, prefill(driver, whole, unshared), len(whole), unshared, 10)
        assert decode(driver, first, len(whole), pages, 10) == expected


def test_copied_pages_continue_like_the_original(driver: Driver) -> None:
    """Copy-on-write of a page that is not full."""
    original, copy = [0, 1, 2, 3, 4, 5], [0, 1, 2, 13, 14, 15]
    first = prefill(driver, PROMPT, original)
    driver.copy_pages([(3, 13)])
    expected = decode(driver, first, len(PROMPT), original, 15)
    assert decode(driver, first, len(PROMPT), copy, 15) == expected


def test_pages_are_copied_in_order(driver: Driver) -> None:
    first = prefill(driver, PROMPT, [0, 1, 2, 3, 4, 5])
    expected = decode(driver, first, len(PROMPT), [0, 1, 2, 3, 4, 5], 10)
    first = prefill(driver, PROMPT, [0, 1, 2, 3, 4, 5])
    driver.copy_pages([(3, 20), (20, 21), (0, 20)])
    assert decode(driver, first, len(PROMPT), [20, 1, 2, 21, 4, 5], 10) == expected


def test_pages_that_were_read_continue_elsewhere_like_the_original(new_driver: Callable[[], Driver]) -> None:
    """In other pages of another driver, the last page not full."""
    here, there = new_driver(), new_driver()
    for driver in (here, there):
        driver.allocate_kv(NUM_PAGES)
    pages, others = [0, 1, 2, 3, 4, 5], [9, 4, 7, 1, 2, 3]
    first = prefill(here, PROMPT, pages)
    num_pages = len(pages_for(len(PROMPT)))
    kept = here.read_pages(pages[:num_pages])
    assert all(len(array) == num_pages for array in kept.values())
    expected = decode(here, first, len(PROMPT), pages, 15)
    there.write_pages(others[:num_pages], kept)
    assert decode(there, first, len(PROMPT), others, 15) == expected
    # It was a copy.
    here.write_pages(pages[:num_pages], kept)
    assert decode(here, first, len(PROMPT), pages, 15) == expected


def test_pages_to_read_and_write_stay_inside_the_pool(driver: Driver) -> None:
    with pytest.raises(AssertionError, match="page id"):
        driver.read_pages([NUM_PAGES])
    kept = driver.read_pages([0, 1])
    with pytest.raises(AssertionError, match="2 pages, 1 are to be written"):
        driver.write_pages([0], kept)
    with pytest.raises(AssertionError, match="page id"):
        driver.write_pages([0, -1], kept)


def test_going_back_is_as_if_it_had_not_been_generated(driver: Driver) -> None:
    pages = pages_for(64)
    first = prefill(driver, PROMPT, pages)
    tokens = decode(driver, first, len(PROMPT), pages, 12)
    assert decode(driver, tokens[4], len(PROMPT) + 4, pages, 8) == tokens[4:]


def test_sampling_depends_on_the_row_alone(driver: Driver) -> None:
    draws = [0.03, 0.5, 0.77, 0.999]
    tables = [pages_for(40, first=6 * i) for i in range(len(draws))]
    rows = [
        Row(PROMPT, 0, pages, MIXED if i % 2 else Sampler(1.0), uniform=draw, probes=Probes(top_k=i), want_logprob=True)
        for i, (draw, pages) in enumerate(zip(draws, tables, strict=True))
    ]
    together = driver.execute(rows)
    for row, result in zip(rows, together, strict=True):
        [alone] = driver.execute([row])
        assert alone.token == result.token
        assert alone.logprob == pytest.approx(result.logprob, abs=1e-4)
        assert [entry.token for entry in alone.probed.top] == [entry.token for entry in result.probed.top]
    assert len({result.token for result in together}) > 1


def mask_of(tokens: Iterable[int], num_bytes: int = 40) -> bytes:
    return sum(1 << token for token in tokens).to_bytes(num_bytes, "little")


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.0), MIXED], ids=["greedy", "random", "mixed"])
def test_a_mask_rules_what_is_chosen_and_probes_do_not_see_it(driver: Driver, sampler: Sampler) -> None:
    [free] = driver.execute([Row(PROMPT, 0, pages_for(40), sampler, 0.3, probes=Probes(top_k=3))])
    for allowed in ({7, 300}, {9}, set(range(320)) - {free.token}):
        for draw in (0.0, 0.5, 0.999):
            row = Row(PROMPT, 0, pages_for(40), sampler, draw, probes=Probes(top_k=3), mask=mask_of(allowed))
            [result] = driver.execute([row])
            assert result.token in allowed
            assert [entry.token for entry in result.probed.top] == [entry.token for entry in free.probed.top]
    everything = Row(PROMPT, 0, pages_for(40), sampler, 0.3, mask=mask_of(range(320)))
    assert driver.execute([everything])[0].token == free.token


def test_a_mask_concerns_its_own_row_and_one_that_allows_nothing_is_a_fault_of_it(driver: Driver) -> None:
    tables = [pages_for(40, first=6 * i) for i in range(3)]
    masks = [None, mask_of([]), mask_of([8])]
    rows = [Row(PROMPT, 0, pages, GREEDY, mask=mask) for pages, mask in zip(tables, masks, strict=True)]
    free, none, eight = driver.execute(rows)
    assert free.token == driver.execute([rows[0]])[0].token
    assert none.error is not None
    assert "none of the vocabulary" in none.error.message
    assert eight.token == 8


def test_tokens_past_the_end_of_a_mask_are_not_allowed(driver: Driver) -> None:
    row = Row(PROMPT, 0, pages_for(40), Sampler(1.0), 0.999, mask=mask_of(range(16), num_bytes=2))
    assert driver.execute([row])[0].token in range(16)


def test_the_likeliest_of_what_a_mask_allows_have_the_probabilities_that_they_have_without_it(driver: Driver) -> None:
    everything = Probes(top_k=20, logits=True)
    [free] = driver.execute([Row(PROMPT, 0, pages_for(40), GREEDY, probes=everything)])
    allowed = [entry.token for entry in free.probed.top[1::2]]
    row = Row(PROMPT, 0, pages_for(40), GREEDY, probes=Probes(top_k=20, of_allowed=True), mask=mask_of(allowed))
    [result] = driver.execute([row])
    found = [entry for entry in result.probed.top if entry.logprob > -math.inf]
    assert [entry.token for entry in found] == allowed
    assert [entry.logprob for entry in found] == pytest.approx([each.logprob for each in free.probed.top[1::2]])
    row.mask = None
    assert driver.execute([row])[0].probed.top == free.probed.top


def test_probes_are_a_distribution(driver: Driver) -> None:
    [result] = driver.execute([Row(PROMPT, 0, pages_for(40), GREEDY, probes=Probes(top_k=5), want_logprob=True)])
    logprobs = [entry.logprob for entry in result.probed.top]
    assert len(logprobs) == 5
    assert logprobs == sorted(logprobs, reverse=True)
    assert all(value <= 0 for value in logprobs)
    assert result.probed.top[0].token == result.token
    assert result.logprob == pytest.approx(logprobs[0], abs=1e-6)
    [bare] = driver.execute([Row(PROMPT, 0, pages_for(40), GREEDY)])
    assert bare.logprob is None
    assert bare.probed.top == []


def test_every_probe_tells_of_the_same_distribution(driver: Driver) -> None:
    [first] = driver.execute([Row(PROMPT, 0, pages_for(40), GREEDY, probes=Probes(top_k=20))])
    asked = [entry.token for entry in first.probed.top[:3]]
    probes = Probes(top_k=20, logprobs_of=asked, entropy=True, logits=True, hidden=True)
    row = Row(PROMPT, 0, pages_for(40), Sampler(banned_tokens=tuple(asked)), probes=probes, mask=mask_of(range(320)))
    [result] = driver.execute([row])
    seen, capabilities = result.probed, driver.capabilities
    assert result.token not in asked
    assert seen.logprobs == pytest.approx([entry.logprob for entry in seen.top[:3]], abs=1e-5)
    logits = array("f", seen.logits)
    assert len(logits) == capabilities.vocab_size
    total = math.log(math.fsum(map(math.exp, logits)))
    for entry in seen.top:
        assert logits[entry.token] - total == pytest.approx(entry.logprob, abs=1e-4)
    logs = [value - total for value in logits if value > -math.inf]
    assert seen.entropy == pytest.approx(-math.fsum(math.exp(value) * value for value in logs), abs=1e-4)
    assert len(array("f", seen.hidden)) == capabilities.hidden_size


def test_probes_are_of_the_rows_that_ask_and_the_same_alone(driver: Driver) -> None:
    wanted = [Probes(hidden=True), Probes(), Probes(logits=True, hidden=True, entropy=True)]
    prompts = [PROMPT, PROMPT[3:20], PROMPT[:7]]
    rows = [Row(p, 0, pages_for(40, first=6 * i), GREEDY, probes=wanted[i]) for i, p in enumerate(prompts)]
    together = [result.probed for result in driver.execute(rows)]
    assert [bool(seen.hidden) for seen in together] == [True, False, True]
    assert [bool(seen.logits) for seen in together] == [False, False, True]
    assert together[1] == Probed()
    for row, seen in zip(rows, together, strict=True):
        [alone] = driver.execute([row])
        assert list(array("f", alone.probed.hidden)) == pytest.approx(list(array("f", seen.hidden)), abs=1e-4)
        assert list(array("f", alone.probed.logits)) == pytest.approx(list(array("f", seen.logits)), abs=1e-4)


ADVANCED = [
    Sampler(repetition_penalty=1.8, frequency_penalty=1.0),
    Sampler(1.0, min_p=0.2, typical_p=0.9, dry_multiplier=1.0),
    Sampler(1.0, xtc_probability=1.0, xtc_threshold=0.05, logit_bias={7: 30.0, 8: 30.0}),
    Sampler(1.0, mirostat_tau=2.0, allowed_tokens=(3, 4, 5, 6)),
]


def test_every_step_of_the_sampler_reaches_the_driver(driver: Driver) -> None:
    rows = [
        Row(PROMPT, 0, pages_for(40, first=6 * i), sampler, 0.4, history=PROMPT, prompt_length=9, xtc_uniform=0.1)
        for i, sampler in enumerate(ADVANCED)
    ]
    together = driver.execute(rows)
    for row, result in zip(rows, together, strict=True):
        [alone] = driver.execute([row])
        assert (alone.token, alone.error) == (result.token, None)
        assert alone.mirostat_mu == pytest.approx(result.mirostat_mu, abs=1e-3)
    assert together[2].token in (7, 8)
    assert together[3].token in (3, 4, 5, 6)
    assert [result.mirostat_mu is None for result in together] == [True, True, True, False]
    favourite = driver.execute([Row(PROMPT, 0, pages_for(40), GREEDY)])[0].token
    assert favourite is not None
    seen = [favourite] * 3
    punished = Row(PROMPT, 0, pages_for(40), Sampler(frequency_penalty=2.0), history=[*PROMPT, *seen])
    assert driver.execute([punished])[0].token != favourite
    punished.prompt_length = len(PROMPT) + 3
    assert driver.execute([punished])[0].token == favourite


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


@pytest.mark.parametrize("sampler", [GREEDY, MIXED], ids=["greedy", "mixed"])
@pytest.mark.parametrize("num_right", [0, 2, 4])
def test_drafts_are_checked_in_one_row(driver: Driver, sampler: Sampler, num_right: int) -> None:
    """Before each draft that follows right ones comes what would have come without drafts, with its log-probability."""
    pages, other = pages_for(len(PROMPT) + 8), pages_for(len(PROMPT) + 8, first=32)
    uniforms = [0.11, 0.83, 0.42, 0.67, 0.29]
    driver.execute([Row(PROMPT[:-1], 0, pages), Row(PROMPT[:-1], 0, other)])
    tokens, logprobs = [PROMPT[-1]], []
    for index, uniform in enumerate(uniforms):
        row = Row(tokens[-1:], len(PROMPT) - 1 + index, pages, sampler, uniform, want_logprob=True)
        [result] = driver.execute([row])
        assert result.token is not None
        assert result.logprob is not None
        tokens.append(result.token)
        logprobs.append(result.logprob)
    drafts = [token if index < num_right else (token + 1) % 300 for index, token in enumerate(tokens[1:5])]
    row = Row([PROMPT[-1], *drafts], len(PROMPT) - 1, other, sampler, uniforms[4], want_logprob=True)
    row.draft_uniforms = uniforms[:4]
    beside = Row(PROMPT[:5], 0, pages_for(5, first=50), GREEDY)
    result, neighbour = driver.execute([row, beside])
    samples = [*result.before_drafts, Sample(result.token, result.logprob, result.probed)]
    assert len(samples) == 5
    assert [sample.token for sample in samples[: num_right + 1]] == tokens[1 : num_right + 2]
    assert [sample.logprob for sample in samples[: num_right + 1]] == pytest.approx(logprobs[: num_right + 1], abs=1e-4)
    assert not neighbour.before_drafts
    # What was refused is written over, and the row goes on as if it had never been.
    again = [tokens[num_right + 1]]
    start = len(PROMPT) + num_right
    assert decode(driver, again[0], start, other, 2) == decode(driver, again[0], start, pages, 2)


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.0)], ids=["greedy", "random"])
def test_each_draft_has_a_mask_of_its_own(driver: Driver, sampler: Sampler) -> None:
    """The same tokens as one after the other, and each within its mask; a mask may still be on its way."""
    pages, other = pages_for(len(PROMPT) + 8), pages_for(len(PROMPT) + 8, first=32)
    uniforms = [0.11, 0.83, 0.42]
    masks = [mask_of(range(first, 300, 7)) for first in range(3)]
    driver.execute([Row(PROMPT[:-1], 0, pages), Row(PROMPT[:-1], 0, other)])
    tokens = [PROMPT[-1]]
    for index, (uniform, mask) in enumerate(zip(uniforms, masks, strict=True)):
        [result] = driver.execute([Row(tokens[-1:], len(PROMPT) - 1 + index, pages, sampler, uniform, mask=mask)])
        assert result.token is not None
        tokens.append(result.token)
    assert [token % 7 for token in tokens[1:]] == [0, 1, 2]
    row = Row(tokens[:3], len(PROMPT) - 1, other, sampler, uniforms[2], mask=lambda: masks[2])
    row.draft_uniforms, row.draft_masks = uniforms[:2], [masks[0], lambda: masks[1]]
    [result] = driver.execute([row])
    assert [*(sample.token for sample in result.before_drafts), result.token] == tokens[1:]
