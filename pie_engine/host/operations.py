"""What a core does for a program: flushes and passes, which answer once, and streams, which answer in chunks."""

from __future__ import annotations

import base64
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec

from pie_engine.errors import Busy, Cancelled, ErrorInfo, InvalidInput
from pie_engine.host.futures import Future
from pie_engine.host.models import pack_tokens
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import NO_USAGE, BeamPlan, FinishReason, Plan, Usage
from pie_engine.protocol.sampling import Probes, Sampler, TopToken
from pie_engine.protocol.to_core import Delivered, Draft, Flush, Forward, Generate, Save, Search, Steer, Stop
from pie_engine.protocol.to_host import Chunk, CoreResult, Failed, Flushed, Forwarded, Saved, Searched
from pie_engine.store.contexts import check_name

if TYPE_CHECKING:
    from pie_engine.host.contexts import Context
    from pie_engine.host.matchers import Matcher
    from pie_engine.host.process import Process

RELEASED = Cancelled("the context was released").info


class Operation(Future):
    """Base: its handle is also its id in the core."""

    kind: ClassVar[str] = "an operation"
    num_unapplied = 0
    """Tokens that the core appends when its turn comes."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.process.next_id())
        self.context = context
        self.error: ErrorInfo | None = None
        context.operations[self.handle] = self
        context.core.operations[self.handle] = self

    @property
    def process(self) -> Process:
        return self.context.process

    @property
    def is_at_core(self) -> bool:
        return self.handle in self.context.core.operations

    def receive(self, result: CoreResult) -> None:
        """Something came from the core."""
        raise NotImplementedError

    def context_released(self) -> None:
        """The core answers nothing more."""
        self.fail(RELEASED)

    def fail(self, error: ErrorInfo) -> None:
        self.error = error
        self._leave_core()
        self.notify()

    def notify(self) -> None:
        self.context.process.notify(self.handle)

    def close(self) -> None:
        """The program has its answer, or does not want it any more."""
        self._leave_core()
        self.context.process.futures.remove(self.handle)

    def forget(self) -> None:
        if self.handle in self.context.core.operations:
            self.context.core.send(Stop(self.handle))
        self.close()

    def _leave_core(self) -> None:
        self.context.operations.pop(self.handle, None)
        self.context.core.operations.pop(self.handle, None)


class OneShot(Operation):
    """Answered once; the program then takes the result."""

    def __init__(self, context: Context) -> None:
        context.require_no_plan()
        super().__init__(context)
        self._result: CoreResult | None = None

    def receive(self, result: CoreResult) -> None:
        if isinstance(result, Failed):
            self.fail(result.error)
        else:
            self._result = result
            self._leave_core()
            self.notify()

    def take(self) -> CoreResult:
        """The result, once. Raises the error that the operation ended with."""
        if self.error is None and self._result is None:
            raise Busy(f"{self.kind} {self.handle} is not done", hint="wait for its future first")
        self.close()
        if self.error is not None:
            raise self.error.raised()
        assert self._result is not None
        return self._result


class FlushOperation(OneShot):
    kind = "a flush"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        context.core.send(Flush(self.handle, context.ctx))

    def finish(self) -> None:
        assert isinstance(self.take(), Flushed)


class SaveOperation(OneShot):
    kind = "a save"

    def __init__(self, context: Context, name: str, meta: str, durable: bool) -> None:
        check_name(name)
        super().__init__(context)
        context.core.send(Save(self.handle, context.ctx, name, meta, durable))

    def finish(self) -> None:
        assert isinstance(self.take(), Saved)


class PassOutput(msgspec.Struct, frozen=True):
    """`forward.output`"""

    token: int | None
    logprob: float | None
    top: str
    logprobs: list[float]
    entropy: float | None
    logits: str
    hidden: str


class PassOperation(OneShot):
    kind = "a pass"

    def __init__(
        self,
        context: Context,
        tokens: list[int],
        sampler: Sampler | None,
        probes: Probes,
        prompt_length: int,
        matcher: Matcher | None = None,
        placement: Placement | None = None,
    ) -> None:
        context.check_append(tokens, placement)
        if matcher is not None and matcher.context is not context:
            raise InvalidInput("the matcher belongs to another context", hint="`matcher.fork(ctx)` makes one for this")
        super().__init__(context)
        context.tokens.extend(tokens)
        self.num_unapplied = len(tokens)
        self._matcher = matcher
        handle = 0
        if matcher is not None:
            matcher.num_passes += 1
            handle = matcher.handle
        context.core.send(Forward(self.handle, context.ctx, tokens, sampler, probes, prompt_length, handle, placement))

    def _leave_core(self) -> None:
        super()._leave_core()
        if self._matcher is not None:
            self._matcher.num_passes -= 1
            self._matcher = None

    def finish(self) -> PassOutput:
        result = self.take()
        assert isinstance(result, Forwarded)
        self.context.process.num_tokens += result.token is not None
        seen = result.probed
        return PassOutput(
            result.token,
            result.logprob,
            packed_top(seen.top),
            seen.logprobs,
            seen.entropy,
            base64.b64encode(seen.logits).decode("ascii"),
            base64.b64encode(seen.hidden).decode("ascii"),
        )


def packed_top(top: Sequence[TopToken]) -> str:
    """base64 of little-endian pairs of u32 token and f32 log-probability."""
    pairs = b"".join([struct.pack("<If", one.token, one.logprob) for one in top])
    return base64.b64encode(pairs).decode("ascii") if pairs else ""


class HypothesisOutput(msgspec.Struct, frozen=True):
    """`generate.hypothesis`"""

    ids: str
    text: str
    score: float
    finish: FinishReason


class SearchOutput(msgspec.Struct, frozen=True):
    """`generate.searched`"""

    hypotheses: list[HypothesisOutput]
    usage: Usage


class SearchOperation(OneShot):
    kind = "a beam search"

    def __init__(self, context: Context, plan: BeamPlan) -> None:
        super().__init__(context)
        context.core.send(Search(self.handle, context.ctx, plan))

    def finish(self) -> SearchOutput:
        result = self.take()
        assert isinstance(result, Searched)
        process = self.context.process
        process.count(result.usage, NO_USAGE)
        process.num_tokens += result.usage.completion_tokens
        found = [HypothesisOutput(pack_tokens(one.ids), one.text, one.score, one.finish) for one in result.hypotheses]
        return SearchOutput(found, result.usage)


class ChunkOutput(msgspec.Struct, frozen=True):
    """`generate.chunk`, where its distributions have to be packed."""

    ids: list[int]
    text: str
    logprobs: Sequence[float]
    top: list[str]
    entropies: Sequence[float]
    index: int
    finish: FinishReason | None
    usage: Usage | None

    @classmethod
    def of(cls, chunk: Chunk) -> ChunkOutput:
        top = [packed_top(each) for each in chunk.top]
        return cls(chunk.ids, chunk.text, chunk.logprobs, top, chunk.entropies, chunk.index, chunk.finish, chunk.usage)


class Stream(Operation):
    """A plan. Chunks wait here until the program takes them; taken tokens are in the context."""

    kind = "a stream"
    is_stream = True

    def __init__(self, context: Context, plan: Plan) -> None:
        context.require_no_plan()
        super().__init__(context)
        self.epoch = 0
        self.num_taken = 0
        self._chunks: deque[Chunk] = deque()
        self._is_piped = False
        self._piped_texts: list[str] = []
        self._usage = NO_USAGE
        generations = context.process.generations
        self._traced = None if generations is None else generations.begin(context.core.model.name)
        context.core.send(Generate(self.handle, context.ctx, plan))

    @property
    def is_at_core(self) -> bool:
        """Not where the program could go on with what is there."""
        return super().is_at_core and not self._chunks

    def receive(self, result: CoreResult) -> None:
        if isinstance(result, Failed):
            self.fail(result.error)
            self._trace("error")
            return
        assert isinstance(result, Chunk)
        if (usage := result.usage or result.so_far) is not None:
            self.context.process.count(usage, self._usage)
            self._usage = usage
        if self._traced is not None:
            self._traced.first_token()
            self._trace(result.finish)
        if result.epoch != self.epoch:
            return  # sent before the core had heard of a rewind
        if self._is_piped:
            self._forward(result)
        else:
            self._chunks.append(result)
            self.notify()

    def _trace(self, finish: str | None) -> None:
        if self._traced is not None and finish is not None:
            self._traced.end(finish, self._usage)

    def fail(self, error: ErrorInfo) -> None:
        """Like `Chunk`s, it waits its turn: until then the context still belongs to the plan."""
        self.error = error
        self.context.core.operations.pop(self.handle, None)
        self.notify()

    def context_released(self) -> None:
        self._chunks.clear()
        super().context_released()

    def next(self) -> Chunk | None:
        """Everything that is there, as one chunk; None: nothing. The last one, or the error, closes the stream."""
        if self._chunks:
            chunk = joined(self._chunks)
            self._chunks.clear()
            self._take(chunk)
            if chunk.finish is not None:
                self.close()
            elif self.error is not None:
                self.notify()
            return chunk
        if self.error is not None:
            self.close()
            raise self.error.raised()
        return None

    def stop(self) -> Usage:
        """End the plan; what was not taken has never been. Its usage is that of the newest chunk."""
        self.context.core.send(Stop(self.handle, self.num_taken))
        self.close()
        self._trace("stopped")
        prompt_tokens = len(self.context.tokens) - self.num_taken
        return msgspec.structs.replace(self._usage, prompt_tokens=prompt_tokens, completion_tokens=self.num_taken)

    def forget(self) -> None:
        self.stop()

    def draft(self, index: int, tokens: list[int]) -> None:
        """The program expects `tokens` from its token `index` on."""
        self.context.core.model.check_tokens(tokens)
        if self.error is None:
            self.context.core.send(Draft(self.handle, self.epoch, index, tokens))

    def rewind(self, count: int) -> None:
        if count > self.num_taken:
            raise InvalidInput(f"cannot rewind {count} tokens: this plan has delivered {self.num_taken}")
        self._steer(self.num_taken - count, [])

    def inject(self, tokens: Sequence[int]) -> None:
        self.context.check_append(tokens)
        self._steer(self.num_taken, list(tokens))

    def pipe(self) -> None:
        """From here on the client gets the text; what is there already first."""
        self._is_piped = True
        chunks, self._chunks = self._chunks, deque()
        for chunk in chunks:
            self._forward(chunk)

    def delivered(self) -> Delivered:
        return Delivered(self.handle, self.epoch, self.num_taken)

    def _steer(self, keep: int, inject: list[int]) -> None:
        if self.error is not None:
            raise self.error.raised()
        self._chunks.clear()
        num_dropped = self.num_taken - keep
        if num_dropped:
            self.context.tokens.truncate(len(self.context.tokens) - num_dropped)
        self.epoch += 1
        self.num_taken = keep
        self.context.core.streams_taken.pop(self.handle, None)  # the steering says it
        self.context.core.send(Steer(self.handle, self.epoch, keep, inject))

    def _take(self, chunk: Chunk) -> None:
        self.context.tokens.extend(chunk.ids)
        self.num_taken += len(chunk.ids)
        self.context.process.num_tokens += len(chunk.ids)
        if chunk.finish is None and self.error is None:
            self.context.core.streams_taken[self.handle] = self

    def _forward(self, chunk: Chunk) -> None:
        """Send a chunk to the client; only the last one wakes the program."""
        if chunk.text:
            self._piped_texts.append(chunk.text)
            self.context.process.send_piped(chunk.text)
        self._take(chunk)
        if chunk.finish is not None:
            text = "".join(self._piped_texts)
            last = Chunk(chunk.op, chunk.epoch, [], text, self.num_taken, finish=chunk.finish, usage=chunk.usage)
            self._chunks.append(last)
            self.notify()


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Consecutive chunks as one."""
    first, last = chunks[0], chunks[-1]
    if first is last:
        return first
    return Chunk(
        op=first.op,
        epoch=first.epoch,
        ids=[token for chunk in chunks for token in chunk.ids],
        text="".join(chunk.text for chunk in chunks),
        index=first.index,
        logprobs=[logprob for chunk in chunks for logprob in chunk.logprobs],
        top=[top for chunk in chunks for top in chunk.top],
        entropies=[entropy for chunk in chunks for entropy in chunk.entropies],
        finish=last.finish,
        usage=last.usage,
    )
