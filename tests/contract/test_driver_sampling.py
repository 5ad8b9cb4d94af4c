"""Sampling in any driver: draws, masks, probes and drafts."""

from __future__ import annotations

import math
from array import array

import pytest

from pie_engine.driver.base import Driver, Row, Sample
from pie_engine.protocol.sampling import GREEDY, Probed, Probes, Sampler
from tests.contract.rows import MIXED, PROMPT, decode, mask_of, pages_for


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
