"""`forward`: one pass over what is pending, with a look at the last position."""

from __future__ import annotations

from pie_engine.core.matchers import HeldMatcher
from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.state import Context
from pie_engine.driver.base import RowResult
from pie_engine.errors import Cancelled, ErrorInfo, PieError
from pie_engine.grammar.mask import Mask
from pie_engine.protocol.sampling import GREEDY, check_sampler
from pie_engine.protocol.to_core import Forward
from pie_engine.protocol.to_host import Forwarded


class PassOperation(Operation):
    """Appends its tokens at its turn, whatever becomes of it then: its host counts them from the call on."""

    kind = "pass"
    __slots__ = ("_held", "_is_complete", "_message", "_was_called_off")

    def __init__(
        self, message: Forward, context: Context, facts: ModelFacts, arrival: int, held: HeldMatcher | None = None
    ) -> None:
        """`held`: whose mask the sampler gets."""
        facts.check_tokens(message.tokens)
        super().__init__(message.op, context, facts, arrival)
        # A distribution without a sample still needs the logits.
        sampler = message.sampler or (None if message.probes.is_empty else GREEDY)
        self._ask(sampler, message.probes, message.sampler is not None, has_mask=held is not None)
        self._prompt_length = message.prompt_length
        self._message = message
        self._held = held
        self._is_complete = False
        """Its grammar has no next token: the pass gives none."""
        self._was_called_off = False

    @property
    def is_ready(self) -> bool:
        return self._held is None or self._was_called_off or self._held.is_ready

    def begin(self) -> None:
        self.has_begun = True
        try:
            self.context.extend(self._message.tokens, self._message.placement, self.facts)
        except PieError:
            # Its host counts the tokens all the same.
            self.kv.extend(self._message.tokens)
            raise
        if self._was_called_off:
            self.is_over = True
            return
        self._check_message()
        self.check_context()
        self._is_complete = self._held is not None and self._held.matcher().is_complete
        self.require_logits()

    def _ask_mask(self) -> Mask | None:
        if self._held is None or self._is_complete:
            return None
        return self._held.mask(self.facts.masks, self.facts.tokenizer.eos_ids)

    def refuse(self, error: ErrorInfo) -> None:
        matcher = None if self._held is None or self._is_complete else self._held.matcher()
        if matcher is not None and matcher.is_broken:
            self.fail(matcher.fault.info)
        elif matcher is not None and matcher.may_end and matcher.is_exhausted:
            self._is_complete = True  # that nothing more can follow shows in the mask at times; it runs again without
        else:
            self.fail(error)

    def _check_message(self) -> None:
        self.facts.check_probes(self._message.probes)
        if self._message.sampler is not None:
            check_sampler(self._message.sampler, self.facts.vocab_size)

    def settle(self, result: RowResult, now: float) -> None:
        self.is_over = True
        has_sample = self._message.sampler is not None and not self._is_complete
        token, logprob = (result.token, result.logprob) if has_sample else (None, None)
        self.context.process.host.send(Forwarded(self.op, token, logprob, result.probed))

    def stop(self, keep: int) -> None:
        if self._was_called_off:
            return
        self.fail(Cancelled("the pass was called off").info)
        if not self.has_begun:
            # It keeps its place in the queue for the sake of its tokens.
            self._was_called_off, self.is_over = True, False
