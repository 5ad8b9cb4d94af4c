"""The truncations: which tokens of a distribution stay, over its likeliest tokens only.

Sorting a vocabulary costs more than everything else here, and most truncations are decided by the likeliest hundred
tokens. So each step works on those, keeps account of the weight behind them (the tail), and notes the rows for which
that was not enough; they are done again with more of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pie_engine.sampling.draw import Draw
from pie_engine.sampling.rows import row_sums

LEAST_VALUE = -1e4
"""Where w log w is zero long since, and still a number."""


class Candidates:
    """The likeliest tokens of each row, and what of them is left.

    `values` [rows, n] are logits after temperature, less the largest one, in falling order; -inf: removed. All weights
    are in fp64. A row with a tail still has tokens behind its candidates, none of them likelier than the last of these.
    """

    def __init__(self, values: Tensor, totals: Tensor | None = None, energies: Tensor | None = None) -> None:
        """`totals` and `energies` [rows, 1] are the sums of w and of w log w over the whole row, where w = exp(value);
        None: there is nothing behind the candidates. Energies matter to the steps of `NEEDS_ENTROPY` only."""
        self.values = values.double()
        self.weights = self.values.exp()
        self._bound = self.values[:, -1:]
        if totals is None or energies is None:
            self._tail = self._tail_energy = torch.zeros_like(self._bound)
        else:
            self._tail = (totals - row_sums(self.weights)).clamp(min=0)
            self._tail_energy = energies - self._energies()
        self.has_tail = (self._tail > 0) & (self._bound > -torch.inf)
        self.is_decided = torch.ones_like(self.has_tail)

    @property
    def mass(self) -> Tensor:
        """The weight of all that is left [rows, 1]."""
        return row_sums(self.weights) + torch.where(self.has_tail, self._tail, 0.0)

    @property
    def entropy(self) -> Tensor:
        """Of what is left, in nats [rows, 1]: log(mass) - sum(w log w) / mass."""
        energy = self._energies() + torch.where(self.has_tail, self._tail_energy, 0.0)
        return self.mass.log() - energy / self.mass

    def keep(self, is_kept: Tensor, *, is_certain: Tensor) -> None:
        """Remove the other candidates and the tail; `is_certain` [rows, 1] where no token of the tail would be kept."""
        self.is_decided &= is_certain | ~self.has_tail
        self.has_tail = torch.zeros_like(self.has_tail)
        self._remove(~is_kept)

    def keep_above(self, least: Tensor) -> None:
        """Keep what has at least this value [rows, 1], and the likeliest token in any case."""
        is_kept = self.values >= least
        is_kept[torch.arange(len(is_kept)), self.values.argmax(-1)] = True
        self.keep(is_kept, is_certain=self._bound < least)

    def remove(self, is_removed: Tensor) -> None:
        """Remove candidates, and leave the tail."""
        self._remove(is_removed)

    def tail_distance(self, value: Tensor) -> Tensor:
        """The least distance of a value in the tail from `value`, which must not be below the tail; else 0."""
        return (value - self._bound).clamp(min=0)

    def _energies(self) -> Tensor:
        """The sum of w log w [rows, 1]; what was removed has none."""
        return row_sums(self.weights * self.values.clamp(min=LEAST_VALUE))

    def _remove(self, is_removed: Tensor) -> None:
        self.values = self.values.masked_fill(is_removed, -torch.inf)
        self.weights = self.weights.masked_fill(is_removed, 0.0)


def top_p(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """The fewest tokens that together have probability `top_p` (nucleus: Holtzman et al. 2019)."""
    cumulative = left.weights.cumsum(-1)
    limits = least * left.mass
    last = (cumulative < limits).sum(-1, keepdim=True)
    ranks = torch.arange(cumulative.shape[1])
    left.keep(ranks <= last, is_certain=last < cumulative.shape[1])


def min_p(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """What has at least `min_p` times the probability of the likeliest token (Nguyen et al. 2024)."""
    left.keep_above(left.values.amax(-1, keepdim=True) + least.log())


def typical_p(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """The tokens whose surprise is nearest to the entropy, up to probability `typical_p` (Meister et al. 2022).

    Tokens as near as the last one stay, too, as in Transformers.
    """
    expected = left.mass.log() - left.entropy
    """The value of a token with exactly that surprise."""
    distances = (left.values - expected).abs()
    nearest, order = distances.sort()
    cumulative = left.weights.gather(-1, order).cumsum(-1)
    last = (cumulative < least * left.mass).sum(-1, keepdim=True)
    is_inside = last < cumulative.shape[1]
    limit = nearest.gather(-1, last.clamp(max=cumulative.shape[1] - 1))
    left.keep(distances <= limit, is_certain=is_inside & (limit < left.tail_distance(expected)))


def epsilon_cutoff(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """What has at least probability `epsilon_cutoff` (Hewitt et al. 2022)."""
    left.keep_above(least.log() + left.mass.log())


def eta_cutoff(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """What has at least probability min(eta, sqrt(eta) exp(-entropy)) (Hewitt et al. 2022)."""
    cutoff = torch.minimum(least.log(), least.log() / 2 - left.entropy)
    left.keep_above(cutoff + left.mass.log())


def xtc(left: Candidates, least: Tensor, _draws: Sequence[Draw]) -> None:
    """Remove all tokens with at least probability `xtc_threshold` but the least likely of them (p-e-w 2024)."""
    is_top = left.values >= least.log() + left.mass.log()
    is_last = is_top & (is_top.flip(-1).cumsum(-1).flip(-1) == 1)
    left.is_decided &= ~left.has_tail | ~is_top[:, -1:]
    left.remove(is_top & ~is_last)


def mirostat(left: Candidates, _taus: Tensor, draws: Sequence[Draw]) -> None:
    """What surprises by at most `mu` bits (Basu et al. 2020, version 2); see `next_mu` for the other half."""
    bounds = torch.tensor([mu_of(draw) for draw in draws], dtype=torch.float64).unsqueeze(1)
    left.keep_above(left.mass.log() - bounds * math.log(2))


def mu_of(draw: Draw) -> float:
    """Mirostat's bound for this draw."""
    return 2 * draw.sampler.mirostat_tau if draw.mirostat_mu is None else draw.mirostat_mu


def next_mu(draw: Draw, probability: float) -> float:
    """Mirostat's bound after a token was drawn that had this probability among those that were left."""
    return mu_of(draw) - draw.sampler.mirostat_eta * (-math.log2(probability) - draw.sampler.mirostat_tau)


class Step(NamedTuple):
    """One truncation, by the parameter of the sampler that it gets."""

    off: float
    """The value of the parameter at which nothing happens."""
    take: Callable[[Candidates, Tensor, Sequence[Draw]], None]
    """With the parameter of each row [rows, 1]."""


STEPS = {
    "top_p": Step(1.0, top_p),
    "min_p": Step(0.0, min_p),
    "typical_p": Step(1.0, typical_p),
    "epsilon_cutoff": Step(0.0, epsilon_cutoff),
    "eta_cutoff": Step(0.0, eta_cutoff),
    "xtc_threshold": Step(math.nan, xtc),
    "mirostat_tau": Step(0.0, mirostat),
}
"""In their order. Whether XTC happens at all is up to chance."""
NEEDS_ENTROPY = frozenset({"typical_p", "eta_cutoff"})


def steps_of(draw: Draw) -> tuple[str, ...]:
    """The parameters of the steps that this draw takes."""
    sampler = draw.sampler
    is_xtc = draw.xtc_uniform < sampler.xtc_probability
    return tuple(
        name
        for name, step in STEPS.items()
        if (is_xtc if name == "xtc_threshold" else getattr(sampler, name) != step.off)
    )
