"""The fake's own contract: strict about pages, and scriptable."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pie_engine.driver.base import Row
from pie_engine.driver.create import load_driver
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.errors import InvalidConfig, OutOfPages
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import GREEDY, Probes, Sampler
from tests import models

PAGES = list(range(20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_tokenizer(tmp_path_factory.mktemp("fake"))


def new(folder: Path, **script: object) -> FakeDriver:
    driver = FakeDriver.load(folder, script=FakeScript(**script))  # type: ignore[arg-type]
    driver.allocate_kv(64)
    return driver


def generate(driver: FakeDriver, tokens: list[int], count: int, **options: object) -> list[int]:
    """Prefill and decode on `PAGES`."""
    out: list[int] = []
    pending, position = tokens, 0
    for _ in range(count):
        [result] = driver.execute([Row(pending, position, PAGES, GREEDY, **options)])  # type: ignore[arg-type]
        assert result.token is not None
        out.append(result.token)
        position += len(pending)
        pending = [result.token]
    return out


@pytest.mark.parametrize("pages", [[0, 4, 2], [1, 0, 2], [3, 1, 2], [0, 1, 1]])
def test_a_page_of_another_sequence_is_our_bug(folder: Path, pages: list[int]) -> None:
    driver = new(folder)
    prompt = list(range(5, 45))
    driver.execute([Row(prompt, 0, [0, 1, 2], GREEDY)])
    # The second page has the same tokens as that of the first sequence, after others.
    driver.execute([Row([*range(100, 116), *prompt[16:]], 0, [3, 4, 5])])
    with pytest.raises(AssertionError, match="holds the KV of another sequence"):
        driver.execute([Row([7], 40, pages, GREEDY)])


def test_what_lies_behind_a_written_slot_is_stale(folder: Path) -> None:
    driver = new(folder)
    driver.execute([Row(list(range(5, 21)), 0, [0])])
    assert driver.tokens_in([0], 16) == list(range(5, 21))
    driver.execute([Row([7], 3, [0])])
    assert driver.tokens_in([0], 4) == [5, 6, 7, 7]
    with pytest.raises(AssertionError, match="position 4 was never written"):
        driver.tokens_in([0], 16)


def test_a_copied_page_is_the_same_kv(folder: Path) -> None:
    driver = new(folder)
    driver.execute([Row(list(range(5, 25)), 0, [0, 1])])
    driver.copy_pages([(1, 2)])
    driver.execute([Row([8], 20, [0, 2])])
    assert driver.tokens_in([0, 2], 21) == [*range(5, 25), 8]


def test_reading_what_was_never_written_is_our_bug(folder: Path) -> None:
    driver = new(folder)
    with pytest.raises(AssertionError, match="position 0 was never written"):
        driver.execute([Row([7], 5, [0], GREEDY)])


def test_the_pseudo_text_is_text_and_repeats_itself(folder: Path) -> None:
    tokens = generate(new(folder), [5, 6, 7], 30)
    assert generate(new(folder), [5, 6, 7], 30) == tokens
    assert generate(new(folder), [5, 6, 8], 30) != tokens
    text = Tokenizer.load(folder).decode(tokens)
    assert text.isprintable()
    assert text.strip()


def test_the_pseudo_text_ends_when_asked_to(folder: Path) -> None:
    end = Tokenizer.load(folder).eos_ids[0]
    assert end in generate(new(folder, mean_length=10), [5, 6, 7], 100)
    assert end not in generate(new(folder), [5, 6, 7], 100)


def test_a_reply_is_given_token_by_token_and_ends(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    driver = new(folder, replies=(Reply("the fox, twice", match="fox"), Reply("hello there")))
    reply = [*tokenizer.encode("the fox, twice"), tokenizer.eos_ids[0]]
    assert generate(driver, tokenizer.encode("where is the fox?"), len(reply)) == reply
    other = [*tokenizer.encode("hello there"), tokenizer.eos_ids[0]]
    assert generate(driver, tokenizer.encode("hello"), len(other) + 1) == [*other, other[-1]]


def test_a_reply_goes_on_after_a_recompute(folder: Path) -> None:
    """The core may drop the pages of a plan and prefill what was generated, with the prompt."""
    tokenizer = Tokenizer.load(folder)
    driver = new(folder, replies=(Reply("one two three four"),))
    prompt, reply = tokenizer.encode("count"), tokenizer.encode("one two three four")
    begun = generate(driver, prompt, 4)
    [result] = driver.execute([Row([*prompt, *begun], 0, [40, 41, 42], GREEDY)])
    assert [*begun, result.token] == reply[:5]


def test_no_matching_reply_falls_back_to_pseudo_text(folder: Path) -> None:
    driver = new(folder, replies=(Reply("never", match="zzz"),))
    assert generate(driver, [5, 6, 7], 5) == generate(new(folder), [5, 6, 7], 5)


def test_sampling_follows_its_distribution(folder: Path) -> None:
    driver = new(folder)
    uniforms = [(i + 0.5) / 1000 for i in range(1000)]
    sampled = [
        driver.execute([Row([5, 6], 0, [0], Sampler(1.0, top_k=3), uniform=u, probes=Probes(top_k=3))])[0]
        for u in uniforms
    ]
    likeliest = [entry.token for entry in sampled[0].probed.top]
    counts = [sum(result.token == token for result in sampled) for token in likeliest]
    assert counts == pytest.approx([1000 * 4 / 7, 1000 * 2 / 7, 1000 / 7], abs=2)


def test_steps_take_as_long_as_told(folder: Path) -> None:
    driver = new(folder, step_delay_ms=20, token_delay_ms=2)
    start = time.perf_counter()
    driver.execute([Row([5] * 10, 0, [0])])
    assert time.perf_counter() - start >= 0.04


def test_faults_strike_at_their_step(folder: Path) -> None:
    driver = new(folder, faults=(Fault(1, row=1, message="bad row"), Fault(2)))
    rows = [Row([5], 0, [0], GREEDY), Row([6], 0, [1], GREEDY)]
    assert all(result.error is None for result in driver.execute(rows))
    first, second = driver.execute(rows)
    assert first.error is None
    assert second.error is not None
    assert (second.error.message, second.token) == ("bad row", None)
    with pytest.raises(RuntimeError, match="scripted failure"):
        driver.execute(rows)
    assert all(result.error is None for result in driver.execute(rows))


def test_limits_are_configurable(folder: Path) -> None:
    driver = FakeDriver.load(folder, page_size=4, script=FakeScript(max_context_tokens=32, max_pages=8, page_bytes=64))
    capabilities = driver.capabilities
    assert (capabilities.max_context_tokens, capabilities.page_size, capabilities.page_bytes) == (32, 4, 64)
    with pytest.raises(OutOfPages, match="9 KV pages"):
        driver.allocate_kv(9)


def test_a_script_is_a_json_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"replies": [{"match": "ping", "text": "pong"}], "max_context_tokens": 99}))
    driver = load_driver("fake", folder, script=path)
    assert driver.capabilities.max_context_tokens == 99


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "truncated"),
        ('{"reply": []}', "unknown field `reply`"),
        ('{"replies": [{"text": 3}]}', "Expected `str`, got `int`"),
        ('{"replies": [{"text": "a", "match": "("}]}', "not a regular expression"),
    ],
)
def test_a_bad_script_names_its_fault(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match=says) as refused:
        FakeScript.read(path)
    assert "script.json" in refused.value.message


def test_an_absent_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"none\.json"):
        FakeScript.read(tmp_path / "none.json")
