"""A reply on its way to its program: what is there, what may be sent, what has been taken."""

from __future__ import annotations

from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.probes import TokenProbes, probes_of
from pie_engine.core.state import Context
from pie_engine.core.text import ReplyText
from pie_engine.protocol.plan import RUN_AHEAD_TOKENS, FinishReason, Plan, Usage
from pie_engine.protocol.to_host import Chunk


class Delivery(Operation):
    """Tokens of the reply are at the end of the context, delivered or not. Counts are of the reply's tokens."""

    kind = "plan"
    __slots__ = (
        "_chunk_s",
        "_num_cached",
        "_plan",
        "_reported",
        "_reports",
        "_start",
        "_text",
        "epoch",
        "next_chunk_at",
        "num_sent",
        "num_taken",
    )

    def __init__(self, op: int, plan: Plan, context: Context, facts: ModelFacts, arrival: int) -> None:
        super().__init__(op, context, facts, arrival)
        self._ask(plan.sampler, probes_of(plan), plan.logprobs, has_mask=plan.grammar is not None)
        self._plan = plan
        self._chunk_s = plan.chunk_ms / 1000
        self.epoch = 0
        self.num_sent = 0
        self.num_taken = 0
        self.next_chunk_at = 0.0
        """When the next chunk may go; the first one at once."""
        self._reported = TokenProbes(plan)
        self._reports = not self._reported.is_empty
        self._start = 0
        self._num_cached: int | None = None
        """Tokens of the prompt that did not run for this plan; known with its first token."""
        self._text: ReplyText
        """There is none before its turn."""

    @property
    def num_generated(self) -> int:
        return self.kv.num_tokens - self._start

    @property
    def is_parked(self) -> bool:
        """Held-back text that fills the window must not park the plan: nobody could ever take it."""
        num_undelivered = self.kv.num_tokens - self._start - self.num_taken
        return num_undelivered >= RUN_AHEAD_TOKENS and self._text.num_ready > self.num_taken

    @property
    def holds_chunk(self) -> bool:
        """Whether something waits for its time to be sent."""
        return self._text.num_ready > self.num_sent

    def send_chunk(self, now: float) -> None:
        """Send what may be delivered, if there is anything."""
        start, end = self.num_sent, self._text.num_ready
        if end <= start:
            return
        self.next_chunk_at = now + self._chunk_s
        self.num_sent = end
        ids, text = self._reply(start, end), self._text.between(start, end)
        if start and not self._reports and not self.guesses:
            chunk = Chunk(self.op, self.epoch, ids, text, start)
        else:
            reported = self._reported.between(start, end)
            so_far = self.usage if start == 0 or self.guesses else None
            chunk = Chunk(self.op, self.epoch, ids, text, start, *reported, so_far=so_far)
        self.context.process.host.send(chunk)

    def deliver(self, epoch: int, num_tokens: int) -> None:
        """The program has taken `num_tokens` tokens of the reply in all."""
        if epoch == self.epoch and num_tokens > self.num_taken:
            self.num_taken = num_tokens if num_tokens < self.num_sent else self.num_sent

    def _send_last(self, reason: FinishReason, ids: list[int], text: str) -> None:
        self.is_over = True
        index = self.num_sent - len(ids)
        usage, process = self.usage, self.context.process
        process.num_prompt += usage.prompt_tokens
        process.num_cached += usage.cached_tokens
        reported = self._reported.between(index, self.num_sent)
        chunk = Chunk(self.op, self.epoch, ids, text, index, *reported, reason, usage)
        self.context.process.host.send(chunk)

    @property
    def usage(self) -> Usage:
        if not self.has_begun:
            return Usage(self._start)
        num_cached = self._count_cached() if self._num_cached is None else self._num_cached
        return Usage(self._start, num_cached, self.num_generated, *self._count_guesses())

    def _count_guesses(self) -> tuple[int, int]:
        """How many tokens were guessed ahead, and how many of these were right."""
        return 0, 0

    def _count_cached(self) -> int:
        """What did not run lies before what did. A prompt that was put back has run twice."""
        return min(self._start, max(self.kv.num_computed - self.num_run, 0))

    def _reply(self, start: int, end: int) -> list[int]:
        return [*self.kv.tokens.part(self._start + start, self._start + end)]
