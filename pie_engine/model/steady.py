"""A model on torch that gives the same bits whatever else is in the step.

Three things see to it: products keep to numbers of rows that are multiplied alike (`steady_products`); every token
attends as a decode row does, in the pages of its own sequence, also within a chunk; and everything else works row by
row. The last is what torch does, not what it promises: a model is tried on its own weights when it is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pie_engine.model.base import Inputs, Model, Wrapper
from pie_engine.model.one_by_one import OneByOne
from pie_engine.model.span import Span
from pie_engine.model.steady_products import SteadyProducts

log = logging.getLogger(__name__)

Part = tuple[int, int, int]
"""Of a trial: tokens `first … last - 1` of a sequence."""

_LINE, _COMPANY = 0, 1
_LENGTHS = (19, 70)
_CASES: tuple[list[list[Part]], ...] = (
    [[(_LINE, 0, 19)]],
    [[(_LINE, 0, 5), (_COMPANY, 0, 30)], [(_COMPANY, 30, 31), (_LINE, 5, 6)], [(_LINE, 6, 19)]],
    [[(_COMPANY, 0, 70), (_LINE, 0, 17)], [(_COMPANY, 69, 70), (_LINE, 17, 18)], [(_LINE, 18, 19), (_COMPANY, 69, 70)]],
)
"""Steps, in which the first sequence has to get what it gets one token at a time."""


@runtime_checkable
class CanBeSteady(Model, Protocol):
    """A model whose products can be kept steady."""

    def steady_obstacle(self) -> str | None:
        """Why they cannot, if so; everything else in it works row by row."""

    def keep_steady(self, products: SteadyProducts | None) -> None:
        """None: as the library likes them again."""


class Steady(Wrapper):
    """Another model, whose products are steady, run so."""

    def compute(self, inputs: Inputs) -> Tensor:
        spans = inputs.spans
        if all(span.length == 1 for span in spans):
            return self._model.compute(inputs)
        rows = [span.token(index) for span in spans for index in range(span.length)]
        order = sorted(range(len(rows)), key=lambda token: rows[token].end)
        places = {token: place for place, token in enumerate(order)}
        for token, row in enumerate(rows):
            row.first = places[token]
        return self._model.forward(
            [rows[token] for token in order],
            [inputs.tokens[token] for token in order],
            inputs.cache,
            [places[token] for token in inputs.wanted],
            inputs.states,
        )


def deterministic(model: Model, num_threads: int, page_size: int) -> Model:
    """`model`, on torch, so that each token gets the same bits in any company, as fast as that can be had.

    Whole steps at once where that holds for its weights on this machine, and one token at a time otherwise.
    """
    model.set_num_threads(num_threads)
    obstacle = _obstacle(model, num_threads, page_size)
    if obstacle is None:
        return Steady(model)
    log.warning("deterministic: %s runs one token at a time, which is slow: %s", model.config.architecture, obstacle)
    return OneByOne(model, obstacle)


def _obstacle(model: Model, num_threads: int, page_size: int) -> str | None:
    if num_threads > 1:
        return f"{num_threads} threads cut rows elsewhere in other steps"
    if not isinstance(model, CanBeSteady):
        return "its attention is its own"
    if (reason := model.steady_obstacle()) is not None:
        return reason
    model.keep_steady(SteadyProducts())
    if is_steady(Steady(model), page_size):
        return None
    model.keep_steady(None)
    return "something in it rounds otherwise in other steps"


def is_steady(model: Model, page_size: int) -> bool:
    """Whether a sequence gets the same logits and leaves the same KV token by token, in chunks and in company."""
    alone = _tried(model, page_size, [[(_LINE, index, index + 1)] for index in range(_LENGTHS[_LINE])])
    return all(all(map(torch.equal, alone, _tried(model, page_size, case))) for case in _CASES)


def _tried(model: Model, page_size: int, steps: Sequence[Sequence[Part]]) -> list[Tensor]:
    """The logits of the first sequence after these steps, and what its pages hold."""
    num_pages = [-(-length // page_size) for length in _LENGTHS]
    pages = [range(num_pages[_LINE]), range(num_pages[_LINE], sum(num_pages))]
    cache = model.new_cache(sum(num_pages), page_size)
    logits: list[Tensor] = []
    for parts in steps:
        spans: list[Span] = []
        tokens: list[int] = []
        wanted: list[int] = []
        # As the driver orders them.
        for line, first, last in sorted(parts, key=lambda part: part[2] - part[1] > 1):
            if line == _LINE:
                wanted.extend(range(len(tokens), len(tokens) + last - first))
            spans.append(Span(len(tokens), last - first, first, list(pages[line])))
            tokens.extend((31 * line + 7 + index * index) % model.config.vocab_size for index in range(first, last))
        logits.append(model.forward(spans, tokens, cache, wanted))
    return [torch.cat(logits), *cache.read_pages(list(pages[_LINE])).values()]
