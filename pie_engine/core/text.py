"""The text of a reply while it is generated: whole characters, and stop strings held back until they are decided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy

from pie_engine.model.tokenizer import Detokenizer, Tokenizer

_PRIMING_TOKENS = 16
"""How much of the prompt the detokenizer sees, to know that the reply does not start a text and in which character."""


class StopStrings:
    """Finds the first stop string in a text that comes piece by piece."""

    def __init__(self, stops: Sequence[str]) -> None:
        stops = [stop for stop in stops if stop]
        self._pattern = re.compile("|".join(map(re.escape, stops))) if stops else None
        prefixes = {stop[:length] for stop in stops for length in range(1, len(stop))}
        self._prefixes = tuple(sorted(prefixes, key=len, reverse=True))
        self.max_overlap = max(map(len, stops), default=1) - 1
        """Longest part of a stop string that may lie before a new piece."""

    def __bool__(self) -> bool:
        return self._pattern is not None

    def find(self, text: str) -> int | None:
        """Where the first stop string in `text` begins."""
        match = self._pattern.search(text) if self._pattern else None
        return match.start() if match else None

    def num_held(self, text: str) -> int:
        """Length of the longest end of `text` that could become a stop string."""
        if not text.endswith(self._prefixes):
            return 0
        return next(len(prefix) for prefix in self._prefixes if text.endswith(prefix))


class ReplyText:
    """The text of each token of a reply, and how many tokens may be delivered.

    A token may be delivered when it ends a character and nothing up to its end can become a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: StopStrings) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._detokenizer.push(prompt[-_PRIMING_TOKENS:])
        self._stops, self._has_stops = stops, bool(stops)
        self._pieces: list[str] = []
        self._recent = ""
        """The end of the text that a stop string in the next token may begin in."""
        self._forced: list[tuple[int, int]] = []
        """Runs of tokens that the program dictated: nothing up to the end of one is part of a stop string."""
        self.num_ready = 0
        """Tokens that may be delivered."""

    def fork(self) -> ReplyText:
        """Another one at the same place, which goes its own way."""
        child = copy(self)
        child._detokenizer = self._detokenizer.fork()
        child._pieces, child._forced = self._pieces[:], self._forced[:]
        return child

    @property
    def num_tokens(self) -> int:
        return len(self._pieces)

    def push(self, token: int) -> bool:
        """One more token. True when a stop string is complete; `cut_stop` then takes it off."""
        piece = self._detokenizer.push_one(token)
        self._pieces.append(piece)
        if self._has_stops:
            recent = self._recent + piece
            if self._stops.find(recent) is not None:
                return True
            self._recent = recent[max(0, len(recent) - self._stops.max_overlap) :]
            if num_held := self._stops.num_held(self._recent):
                self._hold(num_held)
                return False
        if not self._detokenizer.states[-1][0]:
            self.num_ready = len(self._pieces)
        return False

    def force(self, tokens: Sequence[int]) -> None:
        """Tokens that the program dictates: they are no reason to stop and nothing of them is held back."""
        start = len(self._pieces)
        self._pieces += map(self._detokenizer.push_one, tokens)
        self._forced.append((start, len(self._pieces)))
        self._recent = ""
        if not self._detokenizer.has_held:
            self.num_ready = len(self._pieces)

    def between(self, start: int, end: int) -> str:
        """The text of tokens `start … end - 1`."""
        return self._pieces[start] if end - start == 1 else "".join(self._pieces[start:end])

    def rewind(self, num_tokens: int) -> None:
        """Keep the first `num_tokens` tokens, as if the others had never been pushed."""
        self._detokenizer.rewind(len(self._pieces) - num_tokens)
        del self._pieces[num_tokens:]
        self.num_ready = min(self.num_ready, num_tokens)
        self._forced = [(start, min(end, num_tokens)) for start, end in self._forced if start < num_tokens]
        recent = self.between(self._first_within_reach(num_tokens), num_tokens)
        self._recent = recent[max(0, len(recent) - self._stops.max_overlap) :]

    def cut_stop(self, num_delivered: int) -> None:
        """End before the stop string that the last token completed.

        A token that lies within it goes; one in which it begins is kept, but its text is cut. What has been delivered
        stays.
        """
        num_kept = self._first_within_reach(len(self._pieces) - 1)
        position = self._stops.find(self.between(num_kept, len(self._pieces)))
        assert position is not None
        while position > 0:
            position -= len(self._pieces[num_kept])
            num_kept += 1
        self.rewind(max(num_kept, num_delivered))
        if position < 0 and num_kept > num_delivered:
            self._pieces[-1] = self._pieces[-1][:position]
        self.num_ready = len(self._pieces)

    def finish(self) -> None:
        """No more tokens come: release what was held back. An unfinished character becomes U+FFFD."""
        if self._pieces:
            self._pieces[-1] += self._detokenizer.flush()
        self.num_ready = len(self._pieces)

    def _hold(self, num_held: int) -> None:
        """Only the tokens before the last `num_held` characters may be delivered."""
        num_ready, states = len(self._pieces), self._detokenizer.states
        before = len(states) - num_ready
        """States of what came before the reply."""
        while num_held > 0:
            num_ready -= 1
            num_held -= len(self._pieces[num_ready])
        while num_ready and states[before + num_ready - 1][0]:
            num_ready -= 1
        self.num_ready = max(self.num_ready, num_ready)

    def _first_within_reach(self, token: int) -> int:
        """The first token that a stop string which ends in `token` may begin in."""
        lowest = self._forced[-1][1] if self._forced else 0
        num_chars = 0
        while token > lowest and num_chars < self._stops.max_overlap:
            token -= 1
            num_chars += len(self._pieces[token])
        return token
