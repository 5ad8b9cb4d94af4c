"""What a beam search has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inferlet._packing import unpack_tokens
from inferlet.errors import InvalidInput
from inferlet.stream import FinishReason, Usage, usage_of


@dataclass(slots=True)
class Hypothesis:
    """One reply that a beam search has found."""

    ids: list[int]
    """Token ids, without the stop token that ended it."""
    text: str
    score: float
    """The sum of the log-probabilities of its tokens, the stop token too, over their number to the power of
    `length_penalty`."""
    finish: FinishReason
    """`stop` and `length` as in `Stream`; `context` where the model's context is full, `deadline` where it had not come
    to its end."""


@dataclass(slots=True)
class Beams:
    """What `Context.generate_beams` returns."""

    hypotheses: list[Hypothesis]
    """Best first; fewer than were asked for where the time was over at once, or a grammar has no more replies."""
    usage: Usage
    """`completion_tokens` are those of all beams, given up or not."""

    @property
    def best(self) -> Hypothesis:
        """The first of them. Raises `InvalidInput` when there is none."""
        if not self.hypotheses:
            raise InvalidInput("the beam search has found nothing", hint="give it more time with `timeout`")
        return self.hypotheses[0]

    @classmethod
    def of(cls, wire: Any) -> Beams:
        """From the record of the host."""
        found = [
            Hypothesis(unpack_tokens(one.ids), one.text, one.score, one.finish.name.lower()) for one in wire.hypotheses
        ]
        return cls(found, usage_of(wire.usage))
