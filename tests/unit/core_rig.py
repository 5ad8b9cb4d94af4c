"""A core over the fake driver, whose host the test plays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import msgspec
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from pie_engine.config import MIB, ModelSection, SchedulingSection
from pie_engine.core.draft_model import DraftModel
from pie_engine.core.loop import DEFAULT_SCHEDULING, Core
from pie_engine.driver.base import Capabilities, Driver, KvPages, Row, RowResult
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.errors import ErrorInfo
from pie_engine.kv.address import Sharing
from pie_engine.kv.context import KvContext
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.pieces import piece_decoder
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Hypothesis, Plan, Usage
from pie_engine.protocol.sampling import Probes, Sampler
from pie_engine.protocol.to_core import (
    Append,
    CoreMessage,
    CreateContext,
    Delivered,
    Flush,
    Fork,
    Forward,
    Generate,
    OpenProcess,
    Steer,
    Stop,
)
from pie_engine.protocol.to_host import (
    Charged,
    Chunk,
    CoreResult,
    Failed,
    Flushed,
    Forwarded,
    Looked,
    Profiled,
    Saved,
    SaveFailed,
    Searched,
    Waits,
)
from pie_engine.store.contexts import SavedContexts

PAGE_SIZE = 4
HOST = "host-1"
RANDOM = Sampler(temperature=1.0)
END = "<end>"


def byte_tokenizer(merges: Sequence[tuple[str, str]] = ()) -> Tokenizer:
    """One token a byte, but for `merges`; `<end>` ends a reply."""

    def load() -> tokenizers.Tokenizer:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {piece: index for index, piece in enumerate([*alphabet, *(left + right for left, right in merges)])}
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab, list(merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([END])
        return tokenizer

    return Tokenizer(load, piece_decoder({"type": "ByteLevel"}, "test"), eos_token=END)


class RecordingDriver:
    """A driver, the fake one as a rule, with a look at what it was asked."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner
        self.steps: list[list[tuple[int, int]]] = []
        """Of each step, (start, number of tokens) of each row."""
        self.num_copies = self.num_pages_read = self.num_pages_written = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def allocate_kv(self, num_pages: int) -> None:
        self._inner.allocate_kv(num_pages)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        self.steps.append([(row.start, len(row.tokens)) for row in rows])
        return self._inner.execute(rows)

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.num_copies += len(pairs)
        self._inner.copy_pages(pairs)

    def read_pages(self, page_ids: Sequence[int]) -> KvPages:
        self.num_pages_read += len(page_ids)
        return self._inner.read_pages(page_ids)

    def write_pages(self, page_ids: Sequence[int], pages: KvPages) -> None:
        self.num_pages_written += len(page_ids)
        self._inner.write_pages(page_ids, pages)

    def tokens_in(self, page_ids: Sequence[int], end: int) -> list[int]:
        assert isinstance(self._inner, FakeDriver)
        return self._inner.tokens_in(page_ids, end)

    def adapter_bytes(self, files: AdapterFiles) -> int:
        return self._inner.adapter_bytes(files)

    def load_adapter(self, files: AdapterFiles) -> None:
        self._inner.load_adapter(files)

    def unload_adapter(self, adapter_id: str) -> None:
        self._inner.unload_adapter(adapter_id)

    def close(self) -> None:
        self._inner.close()


@dataclass
class Heard:
    """What a host has received about one operation, put together as a host would."""

    epoch: int = 0
    ids: list[int] = field(default_factory=list)
    text: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    finish: str | None = None
    usage: Usage | None = None
    error: ErrorInfo | None = None
    save_failed: SaveFailed | None = None
    num_answers: int = 0
    is_flushed: bool = False
    forwarded: Forwarded | None = None
    searched: list[Hypothesis] | None = None
    looked: Looked | None = None


def run_at_once(function: Callable[..., object], *args: object) -> Future[Any]:
    """Instead of in a thread."""
    job: Future[Any] = Future()
    try:
        job.set_result(function(*args))
    except Exception as error:
        job.set_exception(error)
    return job


class Rig:
    """A core, one host with one process, and a clock that moves when told."""

    def __init__(
        self,
        *,
        script: FakeScript | None = None,
        reply: str | None = None,
        merges: Sequence[tuple[str, str]] = (),
        num_pages: int = 256,
        max_batch_tokens: int = 64,
        max_batch_sequences: int = 32,
        prefix_cache: Sharing = "user",
        saved: SavedContexts | None = None,
        saved_contexts_mb: int = 10,
        adapters: Mapping[str, str] | None = None,
        adapter_memory_mb: int = 1,
        num_host_pages: int = 0,
        draft: FakeScript | None = None,
        num_draft_pages: int = 256,
        step_ms: float = 0.0,
        scheduling: SchedulingSection = DEFAULT_SCHEDULING,
        driver: Driver | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """`driver`, `tokenizer`: of a model, instead of the fake one."""
        self.tokenizer = tokenizer or byte_tokenizer(merges)
        if reply is not None:
            script = FakeScript(replies=(Reply(reply),))
        # Of a MiB each, so that the configuration counts them.
        self.script = script = msgspec.structs.replace(script or FakeScript(), page_bytes=1 << 20)
        self.driver = RecordingDriver(driver or FakeDriver(self.tokenizer, script, page_size=PAGE_SIZE))
        page_bytes = self.driver.capabilities.page_bytes
        self.now = 100.0
        section = ModelSection(
            path="test-model",
            num_pages=num_pages,
            max_batch_tokens=max_batch_tokens,
            max_batch_sequences=max_batch_sequences,
            prefix_cache=prefix_cache,
            saved_contexts_mb=saved_contexts_mb,
            adapters=dict(adapters or {}),
            adapter_memory_mb=adapter_memory_mb,
            offload_memory_mb=-(-num_host_pages * page_bytes // MIB),
            step_ms=step_ms,
        )
        self.draft_model = None
        if draft is not None:
            self.draft_driver = RecordingDriver(FakeDriver(self.tokenizer, draft, page_size=PAGE_SIZE))
            self.draft_model = DraftModel(
                self.draft_driver,
                num_pages=num_draft_pages,
                max_batch_tokens=max_batch_tokens,
                sharing=prefix_cache,
                clock=lambda: self.now,
            )
        self.core = Core(
            self.driver,
            self.tokenizer,
            section,
            saved=saved,
            draft_model=self.draft_model,
            scheduling=scheduling,
            clock=lambda: self.now,
        )
        self.heard: dict[int, Heard] = {}
        self.waits: list[Waits] = []
        self.profiled: list[Profiled] = []
        self.charged: list[Charged] = []
        self._num_ids = 0
        self.send(OpenProcess("p1", "test"))

    def send(self, *messages: CoreMessage, host: str = HOST) -> None:
        self.core.receive(host, messages)

    def new_id(self) -> int:
        self._num_ids += 1
        return self._num_ids

    def context(self, prompt: str = "", *, seed: int = 1, pid: str = "p1", adapter_id: str = "") -> int:
        ctx = self.new_id()
        self.send(CreateContext(ctx, pid, seed, adapter_id), Append(ctx, self.tokenizer.encode(prompt)))
        return ctx

    def generate(self, ctx: int, plan: Plan | None = None, **fields: object) -> int:
        op = self.new_id()
        self.send(Generate(op, ctx, plan or Plan(**fields)))  # type: ignore[arg-type]
        return op

    def forward(self, ctx: int, tokens: Sequence[int] = (), sampler: Sampler | None = None, top_k: int = 0) -> int:
        op = self.new_id()
        self.send(Forward(op, ctx, list(tokens), sampler, Probes(top_k=top_k)))
        return op

    def flush(self, ctx: int) -> int:
        op = self.new_id()
        self.send(Flush(op, ctx))
        return op

    def fork(self, ctx: int, length: int) -> int:
        child = self.new_id()
        self.send(Fork(ctx, child, length))
        return child

    def step(self, num_steps: int = 1, *, after_s: float = 0.0) -> None:
        for _ in range(num_steps):
            self.now += after_s
            self.core.step()
            self.hear()

    def hear(self) -> None:
        for result in self.core.take_outgoing().get(HOST, []):
            if isinstance(result, Waits):
                self.waits.append(result)
                continue
            if isinstance(result, Charged):
                self.charged.append(result)
                continue
            if isinstance(result, Profiled):
                self.profiled.append(result)
                continue
            heard = self.heard.setdefault(result.op, Heard())
            assert heard.error is None, f"an answer after the failure of {result.op}: {result}"
            _take(heard, result)

    def run(self, *, takes: bool = True, max_steps: int = 2000) -> None:
        """Until nothing runs any more; the program takes every chunk at once."""
        for _ in range(max_steps):
            self.step(after_s=0.1)
            if takes:
                self.take_all()
            if self.core.is_idle and self.core.next_due_at is None:
                self.check()
                return
        raise AssertionError(f"still running after {max_steps} steps")

    def take_all(self) -> None:
        for op, heard in self.heard.items():
            if heard.chunks and heard.finish is None:
                self.send(Delivered(op, heard.epoch, len(heard.ids)))

    def steer(self, op: int, keep: int, inject: Sequence[int] = ()) -> None:
        heard = self.heard.setdefault(op, Heard())
        kept = self.tokenizer.decode(heard.ids[:keep])
        heard.epoch, heard.ids, heard.text, heard.finish = heard.epoch + 1, heard.ids[:keep], kept, None
        self.send(Steer(op, heard.epoch, keep, list(inject)))

    def stop(self, op: int, keep: int = 0) -> None:
        heard = self.heard.setdefault(op, Heard())
        heard.ids = heard.ids[:keep]
        self.send(Stop(op, keep))

    def kv(self, ctx: int, host: str = HOST) -> KvContext:
        return self.core._hosts[host].contexts[ctx].kv

    def tokens(self, ctx: int, host: str = HOST) -> list[int]:
        return self.kv(ctx, host).tokens[:]

    def num_computed(self, ctx: int) -> int:
        return self.kv(ctx).num_computed

    def text(self, ctx: int) -> str:
        return self.tokenizer.decode(self.tokens(ctx))

    def check(self) -> None:
        assert self.core.check_integrity() == []


def error_of(rig: Rig, op: int) -> ErrorInfo:
    error = rig.heard[op].error
    assert error is not None, rig.heard[op]
    return error


def _take(heard: Heard, result: CoreResult) -> None:
    match result:
        case Chunk() if result.epoch != heard.epoch:
            return
        case Chunk():
            assert heard.finish is None, "a chunk after the last one"
            assert result.index == len(heard.ids)
            heard.chunks.append(result)
            heard.ids += result.ids
            heard.text += result.text
            heard.finish, heard.usage = result.finish, result.usage
        case SaveFailed():
            heard.save_failed = result
            return
        case Failed():
            heard.error = result.error
        case Flushed() | Saved():
            heard.is_flushed = True
        case Forwarded():
            heard.forwarded = result
        case Looked():
            heard.looked = result
        case Searched():
            heard.searched, heard.usage = result.hypotheses, result.usage
    heard.num_answers += 1
