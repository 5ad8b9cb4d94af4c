"""`deterministic`: tokens, log-probabilities, logits and hidden states have the same bits alone and in any company."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.cpu import CpuDriver
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan, Speculation
from pie_engine.protocol.sampling import GREEDY, Probed, Probes, Sampler
from pie_engine.protocol.to_core import (
    Append,
    CreateContext,
    Delivered,
    Draft,
    Flush,
    Fork,
    Forward,
    Generate,
    OpenProcess,
    Restore,
    Save,
)
from pie_engine.protocol.to_host import Charged, Chunk, Flushed, Forwarded, Saved
from pie_engine.store.contexts import SavedContexts
from tests import models

NUM_CASES = 5
COMMON = [7 + 5 * index % 290 for index in range(35)]
"""What half of the prompts begin with."""
EVERYTHING = Probes(top_k=3, entropy=True, logits=True, hidden=True, logprobs_of=[1, 2])
SAMPLERS = [
    GREEDY,
    Sampler(temperature=1.0),
    Sampler(temperature=0.7, top_k=20),
    Sampler(temperature=1.3, min_p=0.02, top_p=0.95),
    Sampler(temperature=1.0, typical_p=0.8, repetition_penalty=1.2),
    Sampler(temperature=0.9, eta_cutoff=0.01, mirostat_tau=0.0),
    Sampler(temperature=1.0, mirostat_tau=4.0),
]


@dataclass
class Case:
    """A prompt with a reply, then a pass that looks at everything."""

    number: int
    prompt: list[int]
    plan: Plan

    @classmethod
    def draw(cls, number: int, choice: random.Random) -> Case:
        own = [choice.randrange(3, 300) for _ in range(choice.randrange(1, 25))]
        prompt = COMMON[: choice.randrange(len(COMMON))] + own * choice.choice([1, 2])
        sampler = SAMPLERS[number % len(SAMPLERS)]
        num_tokens = choice.randrange(10, 36)
        plan = Plan(
            sampler, num_tokens, ignore_eos=True, seed=number, chunk_ms=0, logprobs=True, top_logprobs=2, entropy=True
        )
        return cls(number, prompt, plan)


@dataclass
class Heard:
    """Of one case."""

    ids: list[int] = field(default_factory=list)
    reported: list[Any] = field(default_factory=list)
    probed: list[Probed] = field(default_factory=list)


class Rig:
    """A core on a small random checkpoint."""

    def __init__(self, driver: CpuDriver, folder: Path, *, saved: SavedContexts | None = None, **settings: Any) -> None:
        self.capabilities = driver.capabilities
        self.core = Core(driver, Tokenizer.load(folder), ModelSection(path="m", **settings), saved=saved)
        self.heard: dict[int, Heard] = {}
        self.core.receive("h", [OpenProcess("p", "p")])

    def start(self, case: Case, plan: Plan | None = None, *, forks: bool = False) -> None:
        """Ids: the case's number is its context, and with thousands its operations."""
        number, ctx = case.number, case.number
        self.heard[number] = Heard()
        if forks:
            ctx = number + 500
            self.core.receive("h", [CreateContext(ctx, "p", 1), Append(ctx, case.prompt), Flush(3000 + number, ctx)])
            self.core.receive("h", [Fork(ctx, number, len(case.prompt))])
        else:
            self.core.receive("h", [CreateContext(ctx, "p", 1), Append(ctx, case.prompt)])
        last = Forward(2000 + number, number, [9], None, EVERYTHING)
        self.core.receive("h", [Generate(1000 + number, number, plan or case.plan), last])

    def look_again(self, case: Case) -> None:
        """When others have had its pages."""
        self.core.receive("h", [Forward(4000 + case.number, case.number, [11], None, EVERYTHING)])

    def step(self) -> None:
        self.core.step()
        for result in self.core.take_outgoing().get("h", []):
            if isinstance(result, Charged):
                continue
            assert isinstance(result, Chunk | Forwarded | Flushed | Saved), result
            heard = self.heard[result.op % 500]
            if isinstance(result, Chunk):
                heard.ids += result.ids
                heard.reported += [result.logprobs, result.top, result.entropies]
                if result.finish is None:
                    self.core.receive("h", [Delivered(result.op, 0, len(heard.ids))])
            elif isinstance(result, Forwarded):
                heard.probed.append(result.probed)

    def run(self) -> None:
        while not self.core.is_idle or self.core.has_disk_work:
            self.step()
        assert self.core.check_integrity() == []


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "compiled float32": ("gqa-tied", {"dtype": "float32", "kernels": "compiled"}),
    "compiled bfloat16 with soft caps": ("gemma2-even", {"dtype": "bfloat16", "kernels": "compiled"}),
    "compiled with experts and sinks": ("gpt-oss", {"dtype": "float32", "kernels": "compiled"}),
    "compiled with many experts": ("qwen3-moe", {"dtype": "bfloat16", "kernels": "compiled"}),
    "compiled int8": ("qwen3-even", {"dtype": "bfloat16", "kernels": "compiled", "quantize": "int8"}),
    "compiled int4": ("gqa-tied", {"dtype": "float32", "kernels": "compiled", "quantize": "int4"}),
    "compiled with windows": ("mistral", {"dtype": "bfloat16", "kernels": "compiled"}),
    "compiled float32 with windows": ("mistral", {"dtype": "float32", "kernels": "compiled"}),
    "torch float32 with windows": ("mistral", {"dtype": "float32", "kernels": "torch"}),
    "torch float32": ("biases", {"dtype": "float32", "kernels": "torch"}),
    "torch bfloat16 with windows": ("mistral", {"dtype": "bfloat16", "kernels": "torch"}),
    "torch with experts and sinks": ("gpt-oss", {"dtype": "float32", "kernels": "torch"}),
    "torch with many experts": ("qwen3-moe", {"dtype": "float32", "kernels": "torch"}),
    "torch int8": ("biases", {"dtype": "float32", "kernels": "torch", "quantize": "int8"}),
    "by Transformers": ("by-transformers-gpt2", {"dtype": "float32"}),
    "by Transformers bfloat16": ("by-transformers-gpt2", {"dtype": "bfloat16"}),
    "by Transformers with windows": ("by-transformers-cwm", {"dtype": "float32"}),
    "by Transformers one by one": ("by-transformers-bloom", {"dtype": "float32"}),
}
QUICK = ("compiled float32", "compiled with experts and sinks", "compiled int8", "torch float32", "by Transformers")


@pytest.fixture(
    params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS], scope="module"
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape, options = KINDS[request.param]
    folder = tmp_path_factory.mktemp("deterministic") / shape
    folder.mkdir()
    models.write_tokenizer(folder)
    return models.write_checkpoint(folder, shape, dtype=options["dtype"], gain=2.0)


@pytest.fixture
def load(folder: Path, request: pytest.FixtureRequest) -> Any:
    _, options = KINDS[request.node.callspec.params["folder"]]
    return lambda: CpuDriver.load(folder, deterministic=True, **options)


def flat(heard: Heard) -> tuple[Any, ...]:
    """Everything that was said, in a form in which chunks do not show."""
    logprobs, top, entropies = ([each for part in heard.reported[kind::3] for each in part] for kind in range(3))
    return heard.ids, logprobs, top, entropies, heard.probed


@pytest.mark.parametrize(
    ("seed", "num_slots"),
    [(1, 1000), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(3, 0, marks=pytest.mark.slow)],
)
def test_the_same_bits_alone_and_in_any_company(
    load: Any, folder: Path, seed: int, num_slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`num_slots`: pages that host memory holds: enough, always too few, none."""
    monkeypatch.setattr("pie_engine.core.loop.num_slots_of", lambda *_: num_slots)
    choice = random.Random(seed)
    cases = [Case.draw(number, choice) for number in range(1, NUM_CASES + 1)]
    alone = Rig(load(), folder, num_pages=64, prefix_cache="off")
    for case in cases:
        alone.start(case)
        alone.look_again(case)
        alone.run()
    busy = Rig(
        load(),
        folder,
        num_pages=choice.randrange(9, 11),
        max_batch_tokens=choice.randrange(5, 70),
        max_batch_sequences=choice.randrange(2, 9),
    )
    waiting = list(cases)
    while waiting or not busy.core.is_idle:
        if waiting and choice.random() < 0.5:
            speculation = Speculation("lookup", choice.randrange(1, 9)) if choice.random() < 0.6 else None
            case = waiting.pop(0)
            busy.start(case, msgspec.structs.replace(case.plan, speculation=speculation), forks=choice.random() < 0.4)
        for number, heard in busy.heard.items():
            if choice.random() < 0.2:
                at = len(heard.ids)
                guess = [token if choice.random() < 0.8 else 5 for token in alone.heard[number].ids[at : at + 4]]
                busy.core.receive("h", [Draft(1000 + number, 0, at, guess)])
        busy.step()
    for case in cases:
        busy.look_again(case)
        busy.run()
    for number, heard in alone.heard.items():
        assert flat(busy.heard[number]) == flat(heard), number
    stats = busy.core.stats()
    assert stats.num_page_hits > 0, "nobody has found a page"
    assert stats.num_used_host_pages == min(num_slots, stats.num_used_host_pages)
    assert (stats.num_page_returns > 0) == (num_slots > 0), "whether pages have come back from host memory"
    assert sum(process.num_drafted for process in stats.processes) > 0


def test_torch_runs_whole_steps(load: Any, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["folder"]
    assert ("-torch-steady" in load().capabilities.model_id) == (
        not kind.startswith("compiled") and "one by one" not in kind
    )


def test_the_same_bits_from_the_disk_in_another_core(load: Any, folder: Path, tmp_path: Path) -> None:
    """As after a restart of the daemon: what was saved half way goes on as if nothing had been."""
    case = Case.draw(2, random.Random(5))
    alone = Rig(load(), folder, num_pages=64)
    alone.start(case)
    alone.look_again(case)
    alone.run()
    first = Rig(load(), folder, num_pages=64, saved=SavedContexts(tmp_path))
    first.start(case)
    first.core.receive("h", [Save(5000 + case.number, case.number, "half")])
    first.run()
    manifest = SavedContexts(tmp_path).read("", "m", "half")
    again = Rig(load(), folder, num_pages=12, saved=SavedContexts(tmp_path))
    again.heard[case.number] = Heard()
    opened = [CreateContext(case.number, "p", 1), Append(case.number, manifest.tokens)]
    again.core.receive("h", [*opened, Restore(case.number, "half", manifest.seen)])
    again.look_again(case)
    again.run()
    assert again.heard[case.number].probed == alone.heard[case.number].probed[1:]
    stats = again.core.stats()
    assert stats.batches.num_prefill_tokens + stats.batches.num_decode_tokens == 1, "it was computed, not read"


@pytest.mark.slow
def test_a_soak_with_eight_times_as_much_context_as_pages(load: Any, folder: Path) -> None:
    choice = random.Random(9)
    cases = [Case.draw(number, choice) for number in range(1, 61)]
    alone = Rig(load(), folder, num_pages=64, prefix_cache="off")
    for case in cases:
        alone.start(case)
        alone.run()
    busy = Rig(load(), folder, num_pages=12, max_batch_tokens=50, max_batch_sequences=12)
    for case in cases:
        busy.start(case, forks=case.number % 3 == 0)
    busy.run()
    for number, heard in alone.heard.items():
        assert flat(busy.heard[number]) == flat(heard), number
    assert sum(-(-len(case.prompt) // 16) + 2 for case in cases) > 8 * 12
    stats = busy.core.stats()
    if busy.capabilities.window is None:  # others give pages back themselves
        assert stats.num_preemptions > 0, "nobody has had to wait with what it had begun"
    assert stats.num_page_returns > 0
