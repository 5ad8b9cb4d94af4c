"""A real model writes the same with and without guesses: token by token, greedy and drawn, whoever guesses."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import transformers

from pie_engine.config import ModelSection
from pie_engine.core.draft_model import DraftModel
from pie_engine.core.loop import Core
from pie_engine.driver.cpu import CpuDriver
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Grammar, Plan, Speculation, Usage
from pie_engine.protocol.sampling import GREEDY, Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Delivered, Draft, Generate, OpenProcess
from pie_engine.protocol.to_host import Charged, Chunk
from tests import models

NUM_TOKENS = 48
PROMPTS = [[5 + 7 * i % 300 for i in range(20)] * 2, [9, 8, 9, 8, 9, 8, 9], list(range(40, 90))]
SAMPLERS = [
    GREEDY,
    Sampler(temperature=0.7, top_k=20),
    Sampler(temperature=1.0),
    Sampler(temperature=1.3, min_p=0.02, top_p=0.95),
]


class Rig:
    """A core over a small random checkpoint in fp32."""

    def __init__(self, driver: CpuDriver, tokenizer: Tokenizer, draft: CpuDriver | None = None, **limits: int) -> None:
        section = ModelSection(path="m", **{"num_pages": 64, "max_batch_tokens": 64} | limits)
        draft_model = (
            None
            if draft is None
            else DraftModel(draft, num_pages=section.num_pages, max_batch_tokens=section.max_batch_tokens)
        )
        self.core = Core(driver, tokenizer, section, draft_model=draft_model)
        self.ids: dict[int, list[int]] = {}
        self.usage: dict[int, Usage] = {}
        self.core.receive("h", [OpenProcess("p", "p")])

    def start(self, op: int, prompt: list[int], plan: Plan) -> None:
        ctx = op + 1000
        self.ids[op] = []
        self.core.receive("h", [CreateContext(ctx, "p", op), Append(ctx, prompt), Generate(op, ctx, plan)])

    def step(self) -> None:
        self.core.step()
        for result in self.core.take_outgoing().get("h", []):
            if isinstance(result, Charged):
                continue
            assert isinstance(result, Chunk), result
            self.ids[result.op] += result.ids
            if result.usage is not None:
                self.usage[result.op] = result.usage
            else:
                self.core.receive("h", [Delivered(result.op, 0, len(self.ids[result.op]))])

    def run(self) -> None:
        while not self.core.is_idle:
            self.step()
        assert self.core.check_integrity() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speculation")
    models.write_tokenizer(folder)
    return models.write_checkpoint(folder, gain=2.0)


@pytest.fixture(scope="module")
def draft_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_noisy(folder, tmp_path_factory.mktemp("noisy"))


@pytest.fixture
def new_rig(folder: Path) -> Any:
    tokenizer = Tokenizer.load(folder)
    return lambda: Rig(CpuDriver.load(folder, dtype="float32", num_threads=1), tokenizer)


def plans(sampler: Sampler, **more: Any) -> Plan:
    return Plan(sampler=sampler, max_tokens=NUM_TOKENS, ignore_eos=True, seed=17, chunk_ms=0, **more)


def compared(plain: Rig, guessing: Rig, guesser: Literal["lookup", "model"]) -> tuple[int, int]:
    """The tokens that `guesser` guesses for all prompts and samplers, and those that were right; none is changed."""
    cases = [(prompt, sampler) for prompt in PROMPTS for sampler in SAMPLERS]
    for op, (prompt, sampler) in enumerate(cases):
        plain.start(op, prompt, plans(sampler))
        guessing.start(op, prompt, plans(sampler, speculation=Speculation(guesser, 8)))
    plain.run()
    guessing.run()
    assert guessing.ids == plain.ids
    return guesses(guessing)


def guesses(rig: Rig) -> tuple[int, int]:
    """How many tokens were guessed, and how many of them were right."""
    usages = rig.usage.values()
    return sum(usage.drafted_tokens for usage in usages), sum(usage.accepted_tokens for usage in usages)


def test_lookup_changes_no_token(new_rig: Any) -> None:
    drafted, accepted = compared(new_rig(), new_rig(), "lookup")
    assert drafted > 10, "it has guessed at all"
    assert accepted > 0


@pytest.mark.parametrize("sampler", SAMPLERS, ids=range(len(SAMPLERS)))
def test_guesses_of_the_program_change_no_token(new_rig: Any, sampler: Sampler) -> None:
    """Right, wrong and half right ones, for many seeds at once: each draw is the one that it would have been."""
    plain, guessing = new_rig(), new_rig()
    choice = random.Random(3)
    seeds = range(12)
    for op in seeds:
        plan = Plan(sampler=sampler, max_tokens=NUM_TOKENS, ignore_eos=True, seed=op, chunk_ms=0)
        plain.start(op, PROMPTS[0], plan)
        guessing.start(op, PROMPTS[0], plan)
    plain.run()
    while not guessing.core.is_idle:
        for op in seeds:
            at = len(guessing.ids[op])
            guess = [token if choice.random() < 0.8 else 5 for token in plain.ids[op][at : at + choice.randrange(6)]]
            guessing.core.receive("h", [Draft(op, 0, at, guess)])
        guessing.step()
    assert guessing.ids == plain.ids
    drafted, accepted = guesses(guessing)
    assert 0 < accepted < drafted
    assert guessing.core.num_steps < plain.core.num_steps


@pytest.mark.parametrize("sampler", [GREEDY, SAMPLERS[2]], ids=["greedy", "random"])
def test_guesses_under_a_grammar_change_no_token(new_rig: Any, sampler: Sampler) -> None:
    """Each guess is sampled under a mask of its own; the grammar refuses some of them."""
    grammar = Grammar("regex", "([a-z ]{3}[A-Z0-9.]+){8}")
    plain, guessing = new_rig(), new_rig()
    plan = plans(sampler, grammar=grammar)
    for rig in (plain, guessing):
        rig.start(1, PROMPTS[0], plan)
        while rig.core.is_compiling:
            rig.core.step()
    plain.run()
    choice = random.Random(7)
    while not guessing.core.is_idle:
        at = len(guessing.ids[1])
        guess = [token if choice.random() < 0.9 else 5 for token in plain.ids[1][at : at + 5]]
        guessing.core.receive("h", [Draft(1, 0, at, guess)])
        guessing.step()
    assert guessing.ids == plain.ids
    assert guessing.usage[1].accepted_tokens > 0
    assert guessing.core.num_steps < plain.core.num_steps


# The draft model.


@pytest.fixture
def new_drafting_rig(folder: Path, draft_folder: Path) -> Any:
    tokenizer = Tokenizer.load(folder)

    def new(**limits: int) -> Rig:
        drivers = [CpuDriver.load(each, dtype="float32", num_threads=1) for each in (folder, draft_folder)]
        return Rig(drivers[0], tokenizer, drivers[1], **limits)

    return new


def test_a_draft_model_changes_no_token(new_rig: Any, new_drafting_rig: Any) -> None:
    plain, guessing = new_rig(), new_drafting_rig()
    drafted, accepted = compared(plain, guessing, "model")
    assert 0.3 * drafted < accepted < drafted, "right at times and wrong at times"
    assert guessing.core.num_steps < plain.core.num_steps
    [process] = guessing.core.stats().processes
    assert (process.num_drafted, process.num_accepted) == (drafted, accepted)


@pytest.mark.parametrize("sampler", [GREEDY, SAMPLERS[2]], ids=["greedy", "random"])
def test_a_draft_model_under_a_grammar_changes_no_token(new_rig: Any, new_drafting_rig: Any, sampler: Sampler) -> None:
    plan = {"grammar": Grammar("regex", "([a-z ]{3}[A-Z0-9.]+){8}")}
    plain, guessing = new_rig(), new_drafting_rig()
    for rig, speculation in ((plain, None), (guessing, Speculation("model", 8))):
        rig.start(1, PROMPTS[0], plans(sampler, speculation=speculation, **plan))
        while rig.core.is_compiling:
            rig.core.step()
        rig.run()
    assert guessing.ids == plain.ids
    assert guessing.usage[1].accepted_tokens > 8


NUM_DRAWN, FEW = 1500, [65, 66, 67]


def test_what_is_drawn_with_a_draft_model_has_the_distribution_of_the_model(
    folder: Path, new_drafting_rig: Any
) -> None:
    """All replies of four tokens out of three, over many seeds, against their exact probabilities: chi-square."""
    rig = new_drafting_rig(num_pages=2000, max_batch_tokens=1200)
    sampler = Sampler(temperature=2.0, allowed_tokens=FEW)
    for op in range(NUM_DRAWN):
        plan = Plan(sampler, max_tokens=4, ignore_eos=True, seed=op, speculation=Speculation("model", 2))
        rig.start(op, PROMPTS[1], plan)
        if op % 100 == 99:  # so that a step has room for the guesses of all
            rig.run()
    drafted = sum(usage.drafted_tokens for usage in rig.usage.values())
    accepted = sum(usage.accepted_tokens for usage in rig.usage.values())
    assert drafted > NUM_DRAWN
    assert 0.2 * drafted < accepted < 0.98 * drafted, (drafted, accepted)
    seen = Counter(tuple(ids) for ids in rig.ids.values())
    expected = exact_probabilities(folder, PROMPTS[1], temperature=2.0)
    assert sum(expected.values()) == pytest.approx(1.0)
    assert seen.keys() <= expected.keys()
    common = {reply: NUM_DRAWN * p for reply, p in expected.items() if NUM_DRAWN * p >= 5}
    rest = NUM_DRAWN - sum(common.values())
    statistic = sum((seen[reply] - count) ** 2 / count for reply, count in common.items())
    if rest > 0:
        statistic += (NUM_DRAWN - sum(seen[reply] for reply in common) - rest) ** 2 / rest
    degrees = len(common)
    assert degrees > 8
    # Wilson and Hilferty: the cube root of chi-square over its degrees is nearly normal; 4 deviations.
    bound = degrees * (1 - 2 / (9 * degrees) + 4 * (2 / (9 * degrees)) ** 0.5) ** 3
    assert statistic < bound


def exact_probabilities(folder: Path, prompt: list[int], *, temperature: float) -> dict[tuple[int, ...], float]:
    """Of each reply of four of the tokens `FEW`, by Transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    known: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(4):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *reply] for reply in known])).logits[:, -1, FEW]
        rows = torch.softmax(logits.double() / temperature, -1).tolist()
        known = {
            (*reply, token): p * own
            for (reply, p), row in zip(known.items(), rows, strict=True)
            for token, own in zip(FEW, row, strict=True)
        }
    return known
