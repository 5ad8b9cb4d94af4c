"""The pseudo text of the fake model: what it writes where nothing is scripted."""

from __future__ import annotations

import hashlib
import math
from array import array
from copy import copy
from functools import lru_cache

from pie_engine.driver.fake_script import FakeScript
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import TopToken
from pie_engine.sampling.draw import Draw
from pie_engine.sampling.plain import may_choose

NUM_CANDIDATES = 20
"""Size of the distributions; each token is half as likely as the one before it."""
HIDDEN_SIZE = 16
_UNLIKELY = -20.0
"""Log-probability of what is not in a distribution, where it still has to have one."""


class FakeText:
    """What comes next after a sequence where nothing is scripted: a pseudo text from the hash of the sequence."""

    def __init__(self, tokenizer: Tokenizer, script: FakeScript) -> None:
        self._tokenizer, self._script = tokenizer, script
        self._end = tokenizer.eos_ids[0] if tokenizer.eos_ids else None
        self._words = _words_of(tokenizer)
        self._adapter = b""
        # Replies may be added to a strict script, and its KV stays what it is.
        replies = () if script.strict else script.replies
        shape = repr((tokenizer.vocab_size, self._end, self._words[:1000], replies, script.mean_length, script.window))
        self.digest = "fake-" + hashlib.blake2b(shape.encode(), digest_size=12).hexdigest()

    def adapted(self, adapter_id: str) -> FakeText:
        """One whose pseudo text is another. Replies stay what they are."""
        writer = copy(self)
        writer._adapter = adapter_id.encode()
        return writer

    def follow(self, script: FakeScript) -> None:
        """Another one from here on."""
        self._script = script

    def digest_of(self, sequence: array[int]) -> bytes:
        """Of what is seen, and of the adapter."""
        return hashlib.blake2b(sequence.tobytes(), digest_size=HIDDEN_SIZE, key=self._adapter).digest()

    def pseudo(self, sequence: array[int], salt: int) -> list[TopToken]:
        """A distribution that depends on `sequence` and `salt`, likeliest first."""
        number = int.from_bytes(self.digest_of(sequence), "little") ^ salt
        if self._script.mean_length and self._end is not None and number % self._script.mean_length == 0:
            return [TopToken(self._end, 0.0)]
        number //= self._script.mean_length or 1
        return self._distribution(self._words, number)

    def logprobs(self, sequence: array[int], top: list[TopToken], draw: Draw) -> dict[int, float]:
        """A distribution as logits. Where nothing of it may be chosen, other tokens that may; what has a bias joins."""
        logprobs = {entry.token: entry.logprob for entry in top}
        if draw.is_adjusted:
            if not any(may_choose(draw, token) for token in logprobs):
                others = [token for token in range(self._tokenizer.vocab_size) if may_choose(draw, token)]
                found = self._distribution(others, int.from_bytes(self.digest_of(sequence), "little")) if others else []
                logprobs |= {entry.token: entry.logprob for entry in found}
            for token in draw.sampler.logit_bias:
                logprobs.setdefault(token, _UNLIKELY)
        return logprobs

    def _distribution(self, words: list[int], number: int) -> list[TopToken]:
        """Some of `words`, which ones depends on `number`."""
        step = 1 + number // len(words) % max(len(words) // NUM_CANDIDATES, 1)
        count = min(NUM_CANDIDATES, len(words))
        tokens = [words[(number + index * step) % len(words)] for index in range(count)]
        total = sum(0.5 ** (index + 1) for index in range(count))
        return [TopToken(token, math.log(0.5 ** (index + 1) / total)) for index, token in enumerate(tokens)]


@lru_cache(maxsize=8)
def _words_of(tokenizer: Tokenizer) -> list[int]:
    """Tokens that are text by themselves. Kept: tests make many fake models with one tokenizer."""
    return [token for token in range(tokenizer.vocab_size) if _is_word(tokenizer, token)] or [0]


def _is_word(tokenizer: Tokenizer, token: int) -> bool:
    if token in tokenizer.special_ids:
        return False
    try:
        text = tokenizer.token_bytes(token).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.isprintable() and bool(text.strip())
