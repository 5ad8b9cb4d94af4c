"""What programs do to what a context sees, on a real model through the core, against Transformers with dense masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.cpu import CpuDriver
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import BeamPlan, Plan
from pie_engine.protocol.sampling import GREEDY, Probes
from pie_engine.protocol.to_core import (
    Append,
    CreateContext,
    Delivered,
    Draft,
    Drop,
    Fork,
    Forward,
    Generate,
    OpenProcess,
    Restore,
    Save,
    Search,
    Truncate,
)
from pie_engine.protocol.to_host import Charged, Chunk, Failed, Forwarded, Saved, Searched
from pie_engine.store.contexts import SavedContexts
from tests import models
from tests.adapters import targets_of, write_adapter
from tests.integration.test_layouts import dense_logits
from tests.stories import Story
from tests.unit.hole_stories import runs

TOLERANCE = 1e-3
"""Of logits in fp32."""
QUICK = [("gqa-tied", "compiled")]
KINDS = [*QUICK, ("gqa-tied", "torch"), ("gemma2-even", "compiled"), ("mistral", "compiled"), ("gpt-oss", "torch")]
"""Layers that see everything; layers that slide, in turns with them and alone; sinks that the model has learned."""


def prompt(length: int, seed: int = 0) -> list[int]:
    return [5 + (7 + seed) * index % 300 for index in range(length)]


@dataclass
class Heard:
    ids: list[int] = field(default_factory=list)
    num_accepted: int = 0
    forwarded: Forwarded | None = None
    searched: Searched | None = None


class Rig:
    """A core on a checkpoint, and what each of its contexts should see."""

    def __init__(
        self, folder: Path, kernels: Any = "compiled", *, saved: SavedContexts | None = None, **settings: Any
    ) -> None:
        driver = CpuDriver.load(folder, dtype="float32", num_threads=1, kernels=kernels)
        chosen = {"num_pages": 64, "max_batch_tokens": 24, **settings}
        self.core = Core(driver, Tokenizer.load(folder), ModelSection(path="m", **chosen), saved=saved)
        self.heard: dict[int, Heard] = {}
        self.stories: dict[int, Story] = {}
        self._num_ids = 0
        self.core.receive("h", [OpenProcess("p", "p")])

    def new_id(self) -> int:
        self._num_ids += 1
        return self._num_ids

    def context(self, tokens: list[int], adapter_id: str = "") -> int:
        ctx = self.new_id()
        self.core.receive("h", [CreateContext(ctx, "p", 0, adapter_id), Append(ctx, tokens)])
        self.stories[ctx] = Story(tokens)
        return ctx

    def save(self, ctx: int, name: str) -> None:
        op = self.new_id()
        self.core.receive("h", [Save(op, ctx, name)])
        while op not in self.heard:
            self.step()

    def open(self, name: str, saved: SavedContexts) -> int:
        manifest = saved.read("", self.core.facts.label, name)
        ctx = self.context(manifest.tokens, manifest.adapter_id)
        self.core.receive("h", [Restore(ctx, name, manifest.seen)])
        return ctx

    def drop(self, ctx: int, first: int, end: int) -> None:
        self.core.receive("h", [Drop(ctx, first, end)])
        self.stories[ctx].drop(first, end)

    def truncate(self, ctx: int, length: int) -> None:
        self.core.receive("h", [Truncate(ctx, length)])
        self.stories[ctx].truncate(length)

    def fork(self, ctx: int) -> int:
        child, length = self.new_id(), len(self.stories[ctx].tokens)
        self.core.receive("h", [Fork(ctx, child, length)])
        self.stories[child] = self.stories[ctx].fork(length)
        return child

    def generate(self, ctx: int, max_tokens: int, *, window: int | None = None, sinks: int = 0, **more: Any) -> int:
        op = self.new_id()
        plan = Plan(max_tokens=max_tokens, ignore_eos=True, chunk_ms=0, window=window, sinks=sinks, **more)
        self.core.receive("h", [Generate(op, ctx, plan)])
        if window is not None:
            self.stories[ctx].slide(window, sinks)
        return op

    def forward(
        self, ctx: int, tokens: list[int], seen: list[set[int]] | None = None, positions: list[int] | None = None
    ) -> int:
        """With all logits."""
        op, story = self.new_id(), self.stories[ctx]
        first = len(story.tokens)
        masks = None
        if seen is not None:
            masks = [runs(each | {number}, number) for number, each in enumerate(seen, first)]
        placement = None if masks is None and positions is None else Placement(positions, masks)
        self.core.receive("h", [Forward(op, ctx, tokens, GREEDY, Probes(logits=True), placement=placement)])
        story.extend(tokens, positions or (), seen or ())
        return op

    def step(self) -> None:
        self.core.step()
        for result in self.core.take_outgoing().get("h", []):
            if isinstance(result, Charged):
                continue
            assert not isinstance(result, Failed), result
            if isinstance(result, Saved):
                self.heard[result.op] = Heard()
                continue
            heard = self.heard.setdefault(result.op, Heard())
            if isinstance(result, Chunk):
                heard.ids += result.ids
                heard.num_accepted = result.usage.accepted_tokens if result.usage else 0
                self.core.receive("h", [Delivered(result.op, 0, len(heard.ids))] if result.finish is None else [])
            elif isinstance(result, Forwarded):
                heard.forwarded = result
            elif isinstance(result, Searched):
                heard.searched = result

    def run(self) -> None:
        while not self.core.is_idle:
            self.step()
        assert self.core.check_integrity() == []

    def reply(self, ctx: int, max_tokens: int, **more: Any) -> list[int]:
        op = self.generate(ctx, max_tokens, **more)
        self.run()
        return self.heard[op].ids

    def num_pages(self, ctx: int) -> int:
        return self.core._hosts["h"].contexts[ctx].kv.num_pages


class Model:
    """A random checkpoint, and what Transformers says of it."""

    def __init__(self, folder: Path, shape: str, **changes: Any) -> None:
        models.write_tokenizer(folder)
        self.folder = models.write_checkpoint(folder, shape, gain=2.0, **changes)
        self._theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self._windows = {layer.window for layer in Checkpoint.open(folder).config.layers}

    def logits(self, story: Story) -> Tensor:
        return dense_logits(self._theirs, self._windows, story.line([]))

    def check_reply(self, story: Story, ids: list[int]) -> None:
        """That `ids`, greedy, follow in `story`, and append them to it."""
        first = len(story.tokens)
        story.extend(ids)
        logits = self.logits(story)[first - 1 : -1]
        behind = logits.max(-1).values - logits[range(len(ids)), ids]
        assert behind.max() < TOLERANCE, f"token {int(behind.argmax())} of the reply is another one"


def kinds(shape_and_kernels: tuple[str, str]) -> Any:
    return shape_and_kernels if shape_and_kernels in QUICK else pytest.param(shape_and_kernels, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=map(kinds, KINDS), ids=" ".join)
def model_and_kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, str]:
    torch.set_num_threads(1)
    shape, kernels = request.param
    return Model(tmp_path_factory.mktemp("holes"), shape), kernels


@pytest.mark.parametrize("settings", [{}, {"num_pages": 16, "offload_memory_mb": 1}], ids=["room", "few pages"])
def test_everything_at_once_is_as_a_dense_mask_says(
    model_and_kernels: tuple[Model, str], settings: dict[str, int]
) -> None:
    """Windows, holes, forks, branches and jumps of positions in one batch, prompts in pieces; also with pages that
    move to host memory and back."""
    model, kernels = model_and_kernels
    rig = Rig(model.folder, kernels, **settings)
    plain, endless, holed, branched = (rig.context(prompt(length, length)) for length in (30, 41, 70, 33))
    ops = {plain: rig.generate(plain, 30), endless: rig.generate(endless, 90, window=20, sinks=3)}
    rig.drop(holed, 3, 40)
    fork = rig.fork(holed)
    rig.drop(fork, 45, 67)
    ops |= {holed: rig.generate(holed, 30), fork: rig.generate(fork, 30, window=8, sinks=2)}
    trunk = set(range(33))
    tree = [trunk, trunk | {33}, trunk, trunk | {35}, trunk | {35, 36}]
    looks = [rig.forward(branched, [11, 12, 13, 14, 15], tree, [33, 34, 33, 34, 35])]
    rig.run()
    looked = [model.logits(rig.stories[branched])[-1]]
    rig.drop(branched, 33, 35)  # the branch that is not gone on with
    looks.append(rig.forward(branched, [16, 17], None, [36, 37]))
    rig.run()
    looked.append(model.logits(rig.stories[branched])[-1])
    for op, expected in zip(looks, looked, strict=True):
        forwarded = rig.heard[op].forwarded
        assert forwarded is not None
        assert (
            torch.frombuffer(bytearray(forwarded.probed.logits), dtype=torch.float32).sub(expected).abs().max()
            < TOLERANCE
        )
    for ctx, op in ops.items():
        model.check_reply(rig.stories[ctx], rig.heard[op].ids)
    assert rig.num_pages(endless) <= 1 + 2 + 1
    rig.truncate(holed, 80)
    model.check_reply(rig.stories[holed], rig.reply(holed, 12))


def test_guesses_with_windows_and_holes_change_no_token(model_and_kernels: tuple[Model, str]) -> None:
    """Right ones and wrong ones, which read pages that are about to be let go."""
    model, kernels = model_and_kernels
    rig = Rig(model.folder, kernels)
    ctx = rig.context(prompt(60))
    rig.drop(ctx, 10, 30)
    fork = rig.fork(ctx)
    right = rig.reply(fork, 60, window=24, sinks=4)
    op = rig.generate(ctx, 60, window=24, sinks=4)
    rig.heard[op] = heard = Heard()
    while not rig.core.is_idle:
        at = len(heard.ids)
        rig.core.receive("h", [Draft(op, 0, at, [*right[at : at + at % 5], 7])])
        rig.step()
    assert heard.ids == right
    assert heard.num_accepted > 10
    model.check_reply(rig.stories[ctx], heard.ids)


def test_beams_see_what_their_context_sees(model_and_kernels: tuple[Model, str]) -> None:
    model, kernels = model_and_kernels
    rig = Rig(model.folder, kernels)
    ctx = rig.context(prompt(50))
    rig.stories[ctx].extend(rig.reply(ctx, 20, window=16, sinks=2))
    rig.drop(ctx, 0, 1)
    op = rig.new_id()
    plan = BeamPlan(num_beams=4, max_tokens=20, num_returned=4, ignore_eos=True)
    rig.core.receive("h", [Search(op, ctx, plan)])
    rig.run()
    searched = rig.heard[op].searched
    assert searched is not None
    for hypothesis in searched.hypotheses:
        story = rig.stories[ctx].fork(len(rig.stories[ctx].tokens))
        first = len(story.tokens)
        story.extend(hypothesis.ids)
        logprobs = model.logits(story).log_softmax(-1)[first - 1 : -1]
        score = logprobs[range(len(hypothesis.ids)), hypothesis.ids].sum() / len(hypothesis.ids)
        assert abs(float(score) - hypothesis.score) < TOLERANCE


SAVED = [("gqa-tied", "compiled", False), ("mistral", "compiled", True)]


@pytest.mark.parametrize(
    ("shape", "kernels", "has_adapter"),
    [
        *SAVED,
        pytest.param("gqa-tied", "compiled", True, marks=pytest.mark.slow),
        pytest.param("gqa-tied", "torch", False, marks=pytest.mark.slow),
        pytest.param("gemma2-even", "compiled", False, marks=pytest.mark.slow),
        pytest.param("gpt-oss", "torch", False, marks=pytest.mark.slow),
    ],
)
def test_what_was_saved_goes_on_with_the_same_logits(
    tmp_path: Path, shape: str, kernels: str, has_adapter: bool
) -> None:
    """Beside the context that was not saved, in a core that knows nothing of it; same bits from compiled kernels."""
    torch.set_num_threads(1)
    models.write_tokenizer(tmp_path)
    folder = models.write_checkpoint(tmp_path, shape, gain=2.0)
    saved = SavedContexts(tmp_path / "saved")
    here, there = (Rig(folder, kernels, saved=saved, max_batch_tokens=64) for _ in range(2))
    adapter_id = ""
    if has_adapter:
        files = write_adapter(tmp_path / "adapter", folder, target_modules=targets_of(shape))
        [adapter_id] = {rig.core.facts.adapters.add("tone", files, lambda _: {}).adapter_id for rig in (here, there)}
    names = ["window", "drop", "mask and positions", "nothing"]
    for index, name in enumerate(names):
        ctx = here.context(prompt(50 + index, index), adapter_id)
        match name:
            case "window":
                here.reply(ctx, 60, window=20, sinks=3)
            case "drop":
                here.drop(ctx, 3, 40)
                here.reply(ctx, 9)
            case "mask and positions":
                trunk = set(range(30))
                here.forward(ctx, [11, 12, 13], [trunk, trunk | {52}, trunk], [60, 61, 60])
                here.run()
        here.save(ctx, name)
        again = there.open(name, saved)
        looks = [rig.forward(each, [21, 22, 23]) for rig, each in ((here, ctx), (there, again))]
        here.run()
        while there.core.has_disk_work or not there.core.is_idle:
            there.step()
        mine, other = (_logits(rig, op) for rig, op in zip((here, there), looks, strict=True))
        if kernels == "compiled":
            assert torch.equal(mine, other), (name, float((mine - other).abs().max()))
        assert (mine - other).abs().max() < TOLERANCE
        assert here.reply(ctx, 30) == there.reply(again, 30)
    assert there.core.counts.num_prefill_tokens <= len(names) * 3, "all else came from the files"


def _logits(rig: Rig, op: int) -> Tensor:
    forwarded = rig.heard[op].forwarded
    assert forwarded is not None
    return torch.frombuffer(bytearray(forwarded.probed.logits), dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "kernels"), [("gqa-tied", "compiled"), ("gemma2-even", "compiled"), ("mistral", "torch")]
)
def test_10000_tokens_in_a_few_pages(tmp_path: Path, shape: str, kernels: str) -> None:
    """Far more than there are pages; the end is what Transformers says behind the tokens that it can depend on."""
    torch.set_num_threads(1)
    num_tokens, window, sinks, num_layers, num_checked = 10_000, 100, 4, 3, 200
    model = Model(tmp_path, shape, max_position_embeddings=num_tokens + 100)
    rig = Rig(model.folder, kernels, num_pages=16)
    ctx = rig.context(prompt(30))
    op = rig.generate(ctx, num_tokens, window=window, sinks=sinks)
    most = 0
    while not rig.core.is_idle:
        rig.step()
        most = max(most, rig.num_pages(ctx))
    ids = rig.heard[op].ids
    assert len(ids) == num_tokens
    assert most <= 1 + 100 // 16 + 2
    assert rig.core.check_integrity() == []
    assert rig.core.pool.num_free >= 16 - most
    # A layer looks back by one window, so nothing before `first` but the sinks reaches the tokens that are checked.
    tokens = [*prompt(30), *ids]
    first = len(tokens) - num_checked - (num_layers + 1) * window
    story = Story(tokens[:sinks])
    story.slide(window, sinks)
    story.extend(tokens[first:], range(first, len(tokens)))
    logits = model.logits(story)[-num_checked - 1 : -1]
    behind = logits.max(-1).values - logits[range(num_checked), ids[-num_checked:]]
    assert behind.max() < TOLERANCE
    assert len(set(ids[-num_checked:])) > 1, "a reply that always says the same would prove nothing"
