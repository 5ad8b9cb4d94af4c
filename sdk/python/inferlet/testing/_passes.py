"""Single passes of the fake model, and its matchers."""

from __future__ import annotations

import math
from types import SimpleNamespace

from inferlet import errors
from inferlet._reply_check import check_reply
from inferlet.testing._generation import FakeGeneration
from inferlet.testing._probes import ENTROPY, packed_floats, packed_top
from inferlet.testing._records import Grammar, Placement, Probes, Sampler


class FakePasses(FakeGeneration):
    """The interfaces `forward` and `matcher`; a matcher's grammar lets in the next reply."""

    def __init__(self) -> None:
        super().__init__()
        self._passes: dict[int, tuple[int, Sampler | None, Probes | None, int | None]] = {}
        self._matchers: dict[int, tuple[list[int], list[int]]] = {}
        """By handle: the tokens of the scripted reply that it lets in, and those that it has taken."""
        self._looks: dict[int, SimpleNamespace] = {}
        self.forward = self._interface("forward", start=self._start_pass, finish=self._finish_pass)
        self.forward.Probes = Probes
        self.matcher = self._interface(
            "matcher", create=self._create_matcher, fork=self._fork_matcher, advance=self._advance,
            rollback=self._roll_back, look=self._look, finish_look=lambda handle: self._looks.pop(handle),
            release=lambda matcher: self._matchers.pop(matcher, None) and None,
        )  # fmt: skip

    def _start_pass(
        self,
        ctx: int,
        tokens: list[int],
        sampler: Sampler | None,
        probes: Probes | None,
        prompt_length: int,
        matcher: int | None,
        placement: Placement | None,
    ) -> int:
        self._tokens_of(ctx).extend(tokens)
        handle = self._new_handle(is_ready=True)
        self._passes[handle] = (ctx, sampler, probes, matcher)
        return handle

    def _finish_pass(self, handle: int) -> SimpleNamespace:
        """The next token is always the next letter of the alphabet after the last one; with a matcher, of its reply.

        Logits are 0 but for that one, and the hidden state is the last token.
        """
        ctx, sampler, probes, matcher = self._passes.pop(handle)
        last = self.contexts[ctx][-1]
        best = last + 1
        if matcher is not None:
            reply, taken = self._matchers[matcher]
            best, sampler = (reply[len(taken)], sampler) if len(taken) < len(reply) else (best, None)
        token, logprob = (best, math.log(0.5)) if sampler is not None else (None, None)
        seen = SimpleNamespace(token=token, logprob=logprob, top="", logprobs=[], entropy=None, logits="", hidden="")
        if probes is not None:
            seen.top = packed_top(best, probes.top_k)
            seen.logprobs = [math.log(0.5) * (1 + abs(token - best)) for token in probes.logprobs_of]
            seen.entropy = ENTROPY if probes.entropy else None
            seen.logits = packed_floats(float(token == best) for token in range(256)) if probes.logits else ""
            seen.hidden = packed_floats([float(last)]) if probes.hidden else ""
        return seen

    def _create_matcher(self, ctx: int, grammar: Grammar) -> int:
        """It lets in one reply of the script and nothing else, token by token."""
        whole = self._next_reply(self.text_of(ctx))
        check_reply(whole, grammar.kind.name, grammar.text)
        handle = self._new_handle()
        self._matchers[handle] = (self.encode(whole), [])
        return handle

    def _fork_matcher(self, matcher: int, ctx: int) -> int:
        self._tokens_of(ctx)
        reply, taken = self._matchers[matcher]
        handle = self._new_handle()
        self._matchers[handle] = (reply, taken.copy())
        return handle

    def _advance(self, matcher: int, tokens: list[int]) -> None:
        self._matchers[matcher][1].extend(tokens)

    def _roll_back(self, matcher: int, count: int) -> None:
        taken = self._matchers[matcher][1]
        if count > len(taken):
            raise errors.InvalidInput(f"cannot roll {count} tokens back: the matcher has taken {len(taken)}")
        del taken[len(taken) - count :]

    def _look(self, matcher: int, tokens: list[int]) -> int:
        reply, taken = self._matchers[matcher]
        coming = reply[len(taken) :]
        lengths = range(len(tokens), -1, -1)
        num_fitting = next(length for length in lengths if tokens[:length] == coming[:length])
        handle = self._new_handle(is_ready=True)
        self._looks[handle] = SimpleNamespace(
            num_fitting=num_fitting, may_end=not coming, is_complete=not coming, forced=[]
        )
        return handle
