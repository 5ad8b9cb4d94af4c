"""Beam search gives what Transformers gives: the same sequences, the same scores, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.cpu import CpuDriver
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import BeamPlan
from pie_engine.protocol.to_core import Append, CreateContext, OpenProcess, Search
from pie_engine.protocol.to_host import Charged, Searched
from tests import models

PROMPT = [5 + 7 * i % 300 for i in range(21)]
EARLY = {False: "no", True: "yes", "never": "never"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beams")
    models.write_tokenizer(folder)
    return models.write_checkpoint(folder, gain=2.0)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def core(folder: Path) -> Core:
    core = Core(
        CpuDriver.load(folder, dtype="float32", num_threads=1, kernels="torch"),
        Tokenizer.load(folder),
        ModelSection(path="m", num_pages=200, max_batch_tokens=64),
    )
    core.receive("h", [OpenProcess("p", "p")])
    return core


def found(core: Core, op: int, prompt: list[int], plan: BeamPlan) -> Searched:
    ctx = op + 1000
    core.receive("h", [CreateContext(ctx, "p", 0), Append(ctx, prompt), Search(op, ctx, plan)])
    while not core.is_idle:
        core.step()
    [answer] = [each for each in core.take_outgoing()["h"] if not isinstance(each, Charged)]
    assert core.check_integrity() == []
    assert isinstance(answer, Searched), answer
    return answer


CASES = [
    (3, 1.0, False, 0),
    (3, 1.0, True, 0),
    (3, 1.0, "never", 0),
    (3, 0.0, "never", 0),
    (3, -1.0, False, 0),
    (3, 2.0, True, 6),
    (1, 1.0, False, 1),
    (2, 1.0, True, 2),
    (4, 0.5, False, 3),
    (5, 1.5, "never", 4),
    (8, 1.0, False, 5),
]


@pytest.mark.parametrize(("num_beams", "penalty", "early", "case"), CASES)
def test_the_same_sequences_and_scores(
    core: Core, theirs: Any, num_beams: int, penalty: float, early: bool | str, case: int
) -> None:
    """Stop tokens are among the likeliest ones of a greedy reply, so that some hypotheses end early."""
    prompt = [(token + 11 * case) % 300 for token in PROMPT]
    with torch.no_grad():
        greedy = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    stops = [int(greedy[0, len(prompt) + 3]), 77] if case != 2 else [301]
    count = min(num_beams, 3)
    with torch.no_grad():
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=14,
            num_beams=num_beams,
            num_return_sequences=count,
            length_penalty=penalty,
            early_stopping=early,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    expected = []
    for row in out.sequences[:, len(prompt) :].tolist():
        end = next((at for at, token in enumerate(row) if token in stops), len(row))
        expected.append(row[:end])
    plan = BeamPlan(
        num_beams,
        max_tokens=14,
        length_penalty=penalty,
        early_stopping=EARLY[early],  # type: ignore[arg-type]
        num_returned=count,
        stop_tokens=stops,
        ignore_eos=True,
    )
    answer = found(core, 1 + CASES.index((num_beams, penalty, early, case)), prompt, plan)
    if num_beams > 1:  # Transformers keeps no score of a greedy search
        assert [hypothesis.score for hypothesis in answer.hypotheses] == pytest.approx(
            out.sequences_scores.tolist(), rel=1e-5
        )
    assert [hypothesis.ids for hypothesis in answer.hypotheses] == expected


def test_searches_at_once_find_what_each_finds_alone(core: Core) -> None:
    """Prompts of different lengths, with different numbers of beams, in one batch."""
    prompts = [PROMPT, PROMPT[:7], [token + 1 for token in PROMPT[3:]], PROMPT[:7]]
    plans = [BeamPlan(beams, max_tokens=9, num_returned=2, ignore_eos=True) for beams in (3, 4, 2, 4)]
    alone = [found(core, 100 + at, *each) for at, each in enumerate(zip(prompts, plans, strict=True))]
    num_steps = core.num_steps
    for op, (prompt, plan) in enumerate(zip(prompts, plans, strict=True), 200):
        core.receive("h", [CreateContext(op + 1000, "p", 0), Append(op + 1000, prompt), Search(op, op + 1000, plan)])
    while not core.is_idle:
        core.step()
    together = {answer.op: answer for answer in core.take_outgoing()["h"] if isinstance(answer, Searched)}
    assert core.num_steps - num_steps <= 11, "their beams run together"
    assert core.check_integrity() == []
    for op, expected in enumerate(alone, 200):
        assert [each.ids for each in together[op].hypotheses] == [each.ids for each in expected.hypotheses]
        scores = [each.score for each in expected.hypotheses]
        assert [each.score for each in together[op].hypotheses] == pytest.approx(scores, rel=1e-5)
