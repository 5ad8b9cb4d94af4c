"""What the fake model says where it has been told to.

A reply goes on as long as a context holds exactly what was asked, and what of the reply has been said; anything else
begins the next one. Where a grammar decides how a text falls into tokens, the reply is said in those.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from pie_engine.driver.base import Row
from pie_engine.driver.fake_script import Reply
from pie_engine.driver.fake_wording import Steps, Wording, behind, first_tokens
from pie_engine.errors import InvalidInput
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import TopToken
from pie_engine.sampling.draw import Draw
from pie_engine.sampling.plain import may_choose

_MAX_REMEMBERED = 1 << 16
_MAX_FORCED = 64
"""Most tokens that a grammar may have written in one go."""
_SHOWN = 40


class _Asked(NamedTuple):
    """A place at which the model was asked: the page of the last token, and what it said from there on."""

    page: int
    rest: Steps


class Place(NamedTuple):
    """Where a sequence lies: the row, and how many slots of it count."""

    row: Row
    end: int
    page_size: int

    def page(self, num_before: int) -> int:
        """Of the token that so many others follow."""
        return self.row.page_ids[(self.end - 1 - num_before) // self.page_size]


class Replies:
    """The replies of a script, and how far each has been said where."""

    def __init__(self, tokenizer: Tokenizer, replies: Sequence[Reply], *, is_strict: bool = False) -> None:
        """`is_strict`: a reply goes on also where its beginning is out of sight. Otherwise what is said depends on
        what is seen alone.

        Raises `InvalidConfig` for a table of what is no single token."""
        self.prompts: list[str] = []
        """The whole text before each reply, in the order in which they began."""
        self._tokenizer = tokenizer
        self._wording = Wording(tokenizer)
        self._is_strict = is_strict
        self._end = tokenizer.eos_ids[0] if tokenizer.eos_ids else None
        self._replies: list[Reply] = []
        self._patterns: list[re.Pattern[str]] = []
        self._steps: list[Steps] = []
        self._is_used: list[bool] = []
        self._asked: OrderedDict[bytes, list[_Asked]] = OrderedDict()
        self._drawn: dict[bytes, int] = {}
        """What was chosen there, where it was not what the reply says (a bias, a ban)."""
        self._asked_at: dict[tuple[int, int], tuple[int, Steps]] = {}
        """The same by page and slot, with the token there: for who does not see all that is before."""

        for reply in replies:
            self.add(reply)

    def add(self, reply: Reply) -> None:
        """One more, behind the others. Raises `InvalidConfig`."""
        self._steps.append(self._wording.steps_of(reply))
        self._replies.append(reply)
        self._patterns.append(re.compile(reply.match or ""))
        self._is_used.append(False)

    def ask(self, sequence: array[int], place: Place, draw: Draw) -> list[TopToken] | None:
        """The distribution after `sequence`; None: no reply is for it.

        Raises `InvalidInput` when the reply does not fit the mask.
        """
        if not self._replies:
            return None
        rest = self._going_on(sequence, place)
        if rest is not None:
            rest = self._fitting(rest, draw)
        else:
            rest = self._beginning(sequence, draw)
        if rest is None:
            if draw.mask is not None and self._has_just_ended(sequence, place):
                raise _unfit(b"")
            return None
        self._remember(sequence, _Asked(place.page(0), rest))
        self._asked_at[place.page(0), place.end] = (sequence[-1], rest)
        return self._distribution(rest)

    def settle(self, sequence: array[int], token: int) -> None:
        """`token` was chosen after `sequence`."""
        key = _digest(sequence)
        if key in self._asked:
            self._drawn[key] = token

    # How far it has come.

    def _going_on(self, sequence: array[int], place: Place) -> Steps | None:
        """What is left of the reply that `sequence` ends within."""
        if len(sequence) < place.end:
            return self._going_on_unseen(sequence, place) if self._is_strict else None
        for num_since in range(1, min(_MAX_FORCED, len(sequence) - 1) + 1) if self._asked else ():
            key = _digest(sequence[:-num_since])
            asked = self._asked.get(key)
            if asked is None:
                continue
            page, since = place.page(num_since), sequence[-num_since:]
            drawn = self._drawn.get(key)
            for one in sorted(asked, key=lambda one: one.page != page):
                rest = self._after(one.rest, since, drawn)
                if rest is not None:
                    return rest
        return None

    def _has_just_ended(self, sequence: array[int], place: Place) -> bool:
        """A grammar has written on where the reply was over."""
        for num_since in range(1, min(_MAX_FORCED, len(sequence) - 1) + 1):
            since, asked = sequence[-num_since:], self._asked.get(_digest(sequence[:-num_since]), [])
            for one in asked:
                text, rest = self._wording.text_ahead(one.rest), one.rest
                is_last = not self._wording.behind_text(rest)
                if is_last and b"".join(map(self._wording.bytes_of, since)).startswith(text) and self._end not in since:
                    return True
        return False

    def _going_on_unseen(self, sequence: array[int], place: Place) -> Steps | None:
        """Where a window moves on or there are holes, what is seen is not what was seen, and a token more."""
        if place.end < 2 or len(sequence) < 2:
            return None
        token, rest = self._asked_at.get((place.page(1), place.end - 1), (None, ()))
        return self._after(rest, sequence[-1:], None) if token == sequence[-2] else None

    def _after(self, rest: Steps, tokens: Sequence[int], drawn: int | None) -> Steps | None:
        """What is left of `rest` behind `tokens`; None: they are not of it."""
        for token in tokens:
            if not rest:
                if token != self._end:
                    return None
                continue
            left = behind(rest, token)
            if left is None:
                left = rest[1:] if token == drawn else self._wording.resumed(rest, token)
            if left is None:
                return None
            rest, drawn = left, None
        return rest

    def _remember(self, sequence: array[int], asked: _Asked) -> None:
        key = _digest(sequence)
        known = self._asked.pop(key, [])
        self._asked[key] = [asked, *(one for one in known if one.page != asked.page)]
        self._drawn.pop(key, None)
        while len(self._asked) > _MAX_REMEMBERED:
            self._drawn.pop(self._asked.popitem(last=False)[0], None)

    # Where it begins.

    def _beginning(self, sequence: array[int], draw: Draw) -> Steps | None:
        prompt = self._tokenizer.decode(sequence)
        index = next((index for index in range(len(self._replies)) if self._is_for(index, prompt)), None)
        if index is None:
            return None
        self._is_used[index] = True
        self.prompts.append(prompt)
        steps = self._steps[index]
        return steps if draw.mask is None else self._behind_forced(steps, prompt, draw)

    def _is_for(self, index: int, prompt: str) -> bool:
        is_left = not (self._replies[index].once and self._is_used[index])
        return is_left and bool(self._patterns[index].search(prompt))

    def _behind_forced(self, steps: Steps, prompt: str, draw: Draw) -> Steps:
        """A grammar may have written the beginning of the reply, without asking."""
        text = self._wording.text_ahead(steps)
        written = prompt.encode()[-len(text) :] if text else b""
        lengths = [length for length in range(len(text), 0, -1) if written.endswith(text[:length])]
        for length in lengths:
            rest = self._wording.from_bytes(text[length:], steps)
            if rest is not None and self._can_be_said(rest, draw):
                return self._fitting(rest, draw)
        return self._fitting(steps, draw)

    # In tokens that may be chosen.

    def _fitting(self, rest: Steps, draw: Draw) -> Steps:
        """The same text, beginning with a token that may be chosen."""
        if draw.mask is None or self._may_say(rest, draw):
            return rest
        fitting = self._wording.said_otherwise(rest, draw)
        if fitting is None:
            raise _unfit(self._wording.text_ahead(rest))
        return fitting

    def _can_be_said(self, rest: Steps, draw: Draw) -> bool:
        return self._may_say(rest, draw) or self._wording.said_otherwise(rest, draw) is not None

    def _may_say(self, rest: Steps, draw: Draw) -> bool:
        if not rest:
            return self._end is None or may_choose(draw, self._end)
        step = rest[0]
        return any(may_choose(draw, token) for token in ([step] if isinstance(step, int) else first_tokens(step)))

    def _distribution(self, rest: Steps) -> list[TopToken]:
        step = rest[0] if rest else self._end
        if not isinstance(step, dict):
            return [TopToken(step if step is not None else 0, 0.0)]
        shares = first_tokens(step)
        total = sum(shares.values())
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        return [TopToken(token, math.log(share / total)) for token, share in ranked]


def _unfit(text: bytes) -> InvalidInput:
    shown = text.decode("utf-8", "replace")[:_SHOWN]
    what = f"cannot go on with `{shown}`" if shown else "cannot end"
    return InvalidInput(
        f"the reply of the fake model does not fit the grammar: here it {what}",
        hint="give a reply that the grammar lets through",
    )


def _digest(sequence: array[int]) -> bytes:
    return hashlib.blake2b(sequence.tobytes(), digest_size=16).digest()
