"""Examples packed into rows of token ids, with the weight that each token has in the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from pie_engine.model.tiny.chat_format import PAD, segments
from pie_engine.model.tiny.corpus import examples

BUFFER_SIZE = 256


@dataclass(frozen=True)
class Row:
    """Token ids, whether each belongs to an answer, and which example of the row it is in, each of `row_tokens`."""

    ids: np.ndarray
    is_answer: np.ndarray
    example: np.ndarray


@dataclass(frozen=True)
class _Document:
    ids: list[int]
    is_answer: list[bool]


class RowStream:
    """Rows of whole examples, best fit first, so that little is padding and every row starts an example."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._examples = examples(seed)
        self._buffer: list[_Document] = []
        self.pad_id = tokenizer.token_to_id(PAD)

    def rows(self, count: int, row_tokens: int) -> list[Row]:
        return [self._next_row(row_tokens) for _ in range(count)]

    def _next_row(self, row_tokens: int) -> Row:
        ids: list[int] = []
        is_answer: list[bool] = []
        lengths: list[int] = []
        self._refill()
        document: _Document | None = self._buffer.pop(0)
        while document is not None:
            ids += document.ids
            is_answer += document.is_answer
            lengths.append(len(document.ids))
            document = self._largest_that_fits(row_tokens - len(ids))
        missing = max(0, row_tokens - len(ids))
        return Row(
            np.array(ids[:row_tokens] + [self.pad_id] * missing, dtype=np.int64),
            np.array(is_answer[:row_tokens] + [False] * missing, dtype=bool),
            np.repeat(np.arange(len(lengths) + 1), [*lengths, missing])[:row_tokens],
        )

    def _largest_that_fits(self, room: int) -> _Document | None:
        # Only the older half competes for the last gaps, else short examples would crowd at the ends of rows.
        candidates = [document for document in self._buffer[:16] if len(document.ids) <= room]
        if not candidates:
            candidates = sorted((d for d in self._buffer if len(d.ids) <= room), key=lambda d: -len(d.ids))
        if not candidates:
            return None
        self._buffer.remove(candidates[0])
        return candidates[0]

    def _refill(self) -> None:
        if len(self._buffer) < BUFFER_SIZE // 2:
            self._buffer += self._tokenized(BUFFER_SIZE - len(self._buffer))

    def _tokenized(self, count: int) -> Iterator[_Document]:
        batch = [list(segments(example)) for example in islice(self._examples, count)]
        texts = [segment.text for parts in batch for segment in parts]
        encodings = iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for parts in batch:
            ids: list[int] = []
            is_answer: list[bool] = []
            for segment in parts:
                piece = next(encodings).ids
                ids += piece
                is_answer += [segment.is_answer] * len(piece)
            yield _Document(ids, is_answer)
