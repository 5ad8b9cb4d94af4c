"""How the next token is chosen, and the text that becomes of them."""

import math
from collections.abc import Sequence

from inferlet import Model

PLAUSIBLE = 0.1
"""Tokens with less than this share of the likeliest one's probability are out of the question
(Li et al., Contrastive Decoding, 2022, https://arxiv.org/abs/2210.15097)."""


def choose(likely: Sequence[tuple[int, float]], prior: Sequence[float], weight: float) -> int:
    """The token that the text speaks for most: (1 + weight) · log p(token | text) - weight · log p(token).

    Context-aware decoding (Shi et al. 2023, https://arxiv.org/abs/2305.14739), greedy.

    Args:
        likely: (token, log-probability) with the text, the likeliest first.
        prior: logits without it, one for each token of the vocabulary; what all of them have in common cancels out.
        weight: how much what the model knew anyway is held against a token; 0: not at all.
    """
    least = likely[0][1] + math.log(PLAUSIBLE)
    plausible = [(token, logprob) for token, logprob in likely if logprob >= least]
    return max(plausible, key=lambda each: (1 + weight) * each[1] - weight * prior[each[0]])[0]


class Reply:
    """Token ids and their text. A character may be spread over several tokens, so some add none at first."""

    def __init__(self, model: Model) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._model = model

    def add(self, token: int) -> str:
        """What it adds to the text."""
        self.ids.append(token)
        text = self._model.tokenizer.decode(self.ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        new, self.text = text[len(self.text) :], text
        return new
