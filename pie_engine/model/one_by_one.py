"""A model on torch that gives the same bits whatever else is in the step: one token at a time, where `steady` fails.

The shapes of a token's pass are fixed by its position alone, not by its neighbours, the chunk or the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pie_engine.model.base import Inputs, Model, Wrapper


class OneByOne(Wrapper):
    """Another model, run so."""

    def __init__(self, model: Model, reason: str) -> None:
        """`reason`: why it has to be."""
        super().__init__(model)
        self.reason = reason

    def compute(self, inputs: Inputs) -> Tensor:
        tokens, wanted, states = inputs.tokens, inputs.wanted, inputs.states
        places = {token: place for place, token in enumerate(wanted)}
        logits = torch.empty(len(wanted), self.config.vocab_size)
        for span in inputs.spans:
            for index in range(span.length):
                place = places.get(span.first + index)
                own = None if states is None or place is None else states[place : place + 1]
                alone = span.token(index)
                result = self._model.forward(
                    [alone], [tokens[span.first + index]], inputs.cache, [] if place is None else [0], own
                )
                if place is not None:
                    logits[place] = result[0]
        return logits
