"""The fake host's replies, which the test has written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

from inferlet import errors
from inferlet._packing import pack_tokens
from inferlet._reply_check import check_reply
from inferlet.testing import _records
from inferlet.testing._client import FakeClient
from inferlet.testing._contexts import FakeContexts
from inferlet.testing._probes import ENTROPY, LOGPROB, packed_top
from inferlet.testing._records import BeamPlan, Finish, Plan

Reply = str | Callable[[str], str]
"""What the model says: a text, or a function of the whole prompt text."""
TOKENS_PER_CHUNK = 4


@dataclass
class _Stream:
    """A scripted reply on its way: what is still to come, and what has been delivered."""

    ctx: int
    plan: Plan
    coming: list[int]
    num_prompt: int
    delivered: list[int] = field(default_factory=list)
    finish: Finish = Finish.STOP
    is_piped: bool = False


class FakeGeneration(FakeContexts, FakeClient):
    """The interface `generate`. Everything is ready at once."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: deque[Reply] = deque()
        self.prompts: list[str] = []
        self.drafts: list[tuple[int, list[int]]] = []
        """(index, tokens) of each `Stream.draft`."""
        self.tokens_per_chunk = TOKENS_PER_CHUNK
        self._streams: dict[int, _Stream] = {}
        self._searches: dict[int, SimpleNamespace] = {}
        self.generate = self._interface(
            "generate", start=self._start, next=self._next, stop=self._stop, rewind=self._rewind, inject=self._inject,
            pipe=self._pipe, draft=lambda stream, index, tokens: self.drafts.append((index, tokens)),
            search=self._search, finish_search=lambda handle: self._searches.pop(handle),
        )  # fmt: skip
        self.generate.Plan, self.generate.Sampler = _records.Plan, _records.Sampler
        self.generate.SamplerOptions = _records.SamplerOptions
        self.generate.Grammar, self.generate.GrammarKind = _records.Grammar, _records.GrammarKind
        self.generate.BeamPlan, self.generate.EarlyStopping = _records.BeamPlan, _records.EarlyStopping
        self.generate.Speculation, self.generate.SpeculationKind = _records.Speculation, _records.SpeculationKind

    def _start(self, ctx: int, plan: Plan) -> int:
        self.prompts.append(self.text_of(ctx))
        whole = self._next_reply(self.prompts[-1])
        if plan.grammar is not None:
            check_reply(whole, plan.grammar.kind.name, plan.grammar.text)
        reply, finish = self._cut(whole, plan.stop)
        coming = self.encode(reply)
        if plan.max_tokens is not None and len(coming) > plan.max_tokens:
            del coming[plan.max_tokens :]
            finish = Finish.LENGTH
        handle = self._new_handle(is_ready=True)
        self._streams[handle] = _Stream(ctx, plan, coming, len(self.contexts[ctx]), finish=finish)
        return handle

    def _search(self, ctx: int, plan: BeamPlan) -> int:
        """A reply for each hypothesis, best first; the scores are the fake's own."""
        self.prompts.append(self.text_of(ctx))
        found, count = [], 0
        for place in range(plan.num_returned):
            whole = self._next_reply(self.prompts[-1])
            if plan.grammar is not None:
                check_reply(whole, plan.grammar.kind.name, plan.grammar.text)
            text, finish = self._cut(whole, plan.stop)
            ids = self.encode(text)
            if plan.max_tokens is not None and len(ids) > plan.max_tokens:
                del ids[plan.max_tokens :]
                text, finish = self.decode(ids, skip_special=True), Finish.LENGTH
            count += len(ids)
            found.append(SimpleNamespace(ids=pack_tokens(ids), text=text, score=LOGPROB * (place + 1), finish=finish))
        usage = _usage_of(len(self._tokens_of(ctx)), count)
        handle = self._new_handle(is_ready=True)
        self._searches[handle] = SimpleNamespace(hypotheses=found, usage=usage)
        return handle

    def _next_reply(self, prompt: str) -> str:
        if not self.replies:
            raise errors.InvalidInput("the test has no reply for this `generate`; give more with `replies=`")
        reply = self.replies.popleft()
        return reply if isinstance(reply, str) else reply(prompt)

    def _cut(self, reply: str, stops: list[str]) -> tuple[str, Finish]:
        ends = [reply.find(stop) for stop in stops if stop in reply]
        return (reply[: min(ends)] if ends else reply), Finish.STOP

    def _stream_of(self, handle: int) -> _Stream:
        if handle not in self._streams:
            raise errors.NotFound("this stream has ended")
        return self._streams[handle]

    def _next(self, handle: int) -> SimpleNamespace | None:
        stream = self._stream_of(handle)
        if stream.is_piped:
            return self._last_piped(handle, stream)
        ids = stream.coming[: self.tokens_per_chunk]
        del stream.coming[: self.tokens_per_chunk]
        return self._chunk(handle, stream, ids, self.decode(ids, skip_special=True))

    def _chunk(self, handle: int, stream: _Stream, ids: list[int], text: str) -> SimpleNamespace:
        index = len(stream.delivered)
        stream.delivered += ids
        self.contexts[stream.ctx] += ids
        logprobs = [LOGPROB] * len(ids) if stream.plan.logprobs else []
        top = [packed_top(token, stream.plan.top_logprobs) for token in ids] if stream.plan.top_logprobs else []
        entropies = [ENTROPY] * len(ids) if stream.plan.entropy else []
        chunk = SimpleNamespace(
            ids=ids, text=text, logprobs=logprobs, top=top, entropies=entropies, index=index, finish=None, usage=None
        )
        if stream.coming:
            self._ready.append(handle)
        else:
            del self._streams[handle]
            chunk.finish = stream.finish
            chunk.usage = _usage(stream)
        return chunk

    def _last_piped(self, handle: int, stream: _Stream) -> SimpleNamespace:
        text = self.decode(stream.coming, skip_special=True)
        self.contexts[stream.ctx] += stream.coming
        self.messages.append(text)
        stream.delivered += stream.coming
        stream.coming = []
        return self._chunk(handle, stream, [], text)

    def _stop(self, handle: int) -> SimpleNamespace:
        return _usage(self._streams.pop(handle, None) or self._stream_of(handle))

    def _rewind(self, handle: int, count: int) -> None:
        stream = self._stream_of(handle)
        if count:
            stream.coming[:0] = stream.delivered[-count:]
            del stream.delivered[-count:], self.contexts[stream.ctx][-count:]
        self._ready.append(handle)

    def _inject(self, handle: int, tokens: list[int]) -> None:
        self._stream_of(handle).coming[:0] = tokens
        self._ready.append(handle)

    def _pipe(self, handle: int) -> None:
        self._stream_of(handle).is_piped = True
        self._ready.append(handle)


def _usage(stream: _Stream) -> SimpleNamespace:
    return _usage_of(stream.num_prompt, len(stream.delivered))


def _usage_of(num_prompt: int, num_written: int) -> SimpleNamespace:
    return SimpleNamespace(
        prompt_tokens=num_prompt, cached_tokens=0, completion_tokens=num_written, drafted_tokens=0, accepted_tokens=0
    )
