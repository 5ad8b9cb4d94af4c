"""A model's tokens as llguidance reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

Words = NDArray[np.uint32]
"""A mask as llguidance writes it."""

_END = b"<end of grammar>"


class TokenSource(Protocol):
    """What is needed of a tokenizer."""

    special_ids: frozenset[int]

    def token_bytes(self, token_id: int) -> bytes: ...

    def encode(self, text: str, *, special: bool = True, continues: bool = False) -> list[int]: ...


class Vocabulary:
    """The tokens of one model, and an additional last one, `end_id`, which stands for the end of the grammar.

    The model's own stop tokens are not that end, so that the core alone decides what ends a reply; a Lark grammar may
    name them like any special token.
    """

    def __init__(self, source: TokenSource, num_tokens: int) -> None:
        """`num_tokens`: the width of the model's logits, which may be more than the tokenizer has.

        Takes about 4 s for each million tokens, and holds the interpreter meanwhile.
        """
        self.num_tokens = self.end_id = num_tokens
        self.num_mask_bytes = -(-num_tokens // 8)
        """Of a mask: one bit for each token, little-endian, the additional one left out."""
        self.num_words = -(-(num_tokens + 1) // 32)
        """Of a mask in units of 32 bits, with that one."""
        self.source = source
        wrapper = cast(TokenizerWrapper, _Wrapper(source, num_tokens))
        self.tokenizer = LLTokenizer(wrapper, n_vocab=num_tokens + 1, eos_token=self.end_id)

    def words_of(self, tokens: Iterable[int]) -> Words:
        """A mask of these tokens; ids that the model does not have are left out."""
        words = np.zeros(self.num_words, np.uint32)
        for token in tokens:
            if 0 <= token < self.num_tokens:
                words[token >> 5] |= np.uint32(1 << (token & 31))
        return words

    def spelled(self, token: int) -> str:
        """A token for people."""
        return repr(self.source.token_bytes(token).decode("utf-8", "replace"))


class _Wrapper:
    """The attributes that `LLTokenizer` asks for."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, source: TokenSource, num_tokens: int) -> None:
        self._source = source
        self.eos_token_id = num_tokens
        self.tokens = [*map(source.token_bytes, range(num_tokens)), _END]
        self.special_token_ids = sorted({*source.special_ids, num_tokens})

    def __call__(self, text: str) -> list[int]:
        """How the model's tokenizer writes `text` in the middle of a reply: where forced tokens come from."""
        return self._source.encode(text, special=False, continues=True)
