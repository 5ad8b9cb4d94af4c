"""The truncations: which tokens of a distribution stay, over its likeliest tokens only.

Sorting a vocabulary costs more than everything else here, and most truncations are decided by the likeliest hundred
tokens. So each step works on those, keeps account of the weight behind them (the tail), and notes the rows for which
that was not enough; they are done again with more of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pie_engine.sampling.draw import Draw
from pie_engine.sampling.rows import row_sums

Array = np.ndarray

LEAST_VALUE = -1e4
"""Where w log w is zero long since, and still a number."""


class Candidates:
    """The likeliest tokens of each row, and what of them is left.

    `values` [rows, n] are logits after temperature, less the largest one, in falling order; -inf: removed. All weights
    are in fp64. A row with a tail still has tokens behind its candidates, none of them likelier than the last of these.
    """

    def __init__(self, values: Array, totals: Array | None = None, energies: Array | None = None) -> None:
        """`totals` and `energies` [rows, 1] are the sums of w and of w log w over the whole row, where w = exp(value);
        None: there is nothing behind the candidates. Energies matter to the steps of `NEEDS_ENTROPY` only."""
        self.values = values.astype(np.float64)
        self.weights = np.exp(self.values)
        self._bound = self.values[:, -1:]
        if totals is None or energies is None:
            self._tail = self._tail_energy = np.zeros_like(self._bound)
        else:
            self._tail = np.maximum(totals - row_sums(self.weights), 0)
            self._tail_energy = energies - self._energies()
        self.has_tail = (self._tail > 0) & (self._bound > -np.inf)
        self.is_decided = np.ones_like(self.has_tail)

    @property
    def mass(self) -> Array:
        """The weight of all that is left [rows, 1]."""
        return row_sums(self.weights) + np.where(self.has_tail, self._tail, 0.0)

    @property
    def entropy(self) -> Array:
        """Of what is left, in nats [rows, 1]: log(mass) - sum(w log w) / mass."""
        energy, mass = self._energies() + np.where(self.has_tail, self._tail_energy, 0.0), self.mass
        entropy: Array = np.log(mass) - energy / mass
        return entropy

    def keep(self, is_kept: Array, *, is_certain: Array) -> None:
        """Remove the other candidates and the tail; `is_certain` [rows, 1] where no token of the tail would be kept."""
        self.is_decided &= is_certain | ~self.has_tail
        self.has_tail = np.zeros_like(self.has_tail)
        self._remove(~is_kept)

    def keep_above(self, least: Array) -> None:
        """Keep what has at least this value [rows, 1], and the likeliest token in any case."""
        is_kept = self.values >= least
        is_kept[np.arange(len(is_kept)), self.values.argmax(-1)] = True
        self.keep(is_kept, is_certain=self._bound < least)

    def remove(self, is_removed: Array) -> None:
        """Remove candidates, and leave the tail."""
        self._remove(is_removed)

    def tail_distance(self, value: Array) -> Array:
        """The least distance of a value in the tail from `value`, which must not be below the tail; else 0."""
        return np.maximum(value - self._bound, 0)

    def _energies(self) -> Array:
        """The sum of w log w [rows, 1]; what was removed has none."""
        return row_sums(self.weights * np.maximum(self.values, LEAST_VALUE))

    def _remove(self, is_removed: Array) -> None:
        self.values = np.where(is_removed, -np.inf, self.values)
        self.weights = np.where(is_removed, 0.0, self.weights)


def top_p(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """The fewest tokens that together have probability `top_p` (nucleus: Holtzman et al. 2019)."""
    cumulative = left.weights.cumsum(-1)
    limits = least * left.mass
    last = (cumulative < limits).sum(-1, keepdims=True)
    ranks = np.arange(cumulative.shape[1])
    left.keep(ranks <= last, is_certain=last < cumulative.shape[1])


def min_p(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """What has at least `min_p` times the probability of the likeliest token (Nguyen et al. 2024)."""
    left.keep_above(left.values.max(-1, keepdims=True) + np.log(least))


def typical_p(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """The tokens whose surprise is nearest to the entropy, up to probability `typical_p` (Meister et al. 2022).

    Tokens as near as the last one stay, too, as in Transformers.
    """
    expected = np.log(left.mass) - left.entropy
    """The value of a token with exactly that surprise."""
    distances = np.abs(left.values - expected)
    order = distances.argsort(-1, kind="stable")
    cumulative = np.take_along_axis(left.weights, order, -1).cumsum(-1)
    last = (cumulative < least * left.mass).sum(-1, keepdims=True)
    is_inside = last < cumulative.shape[1]
    at_limit = np.take_along_axis(order, np.minimum(last, cumulative.shape[1] - 1), -1)
    limit = np.take_along_axis(distances, at_limit, -1)
    left.keep(distances <= limit, is_certain=is_inside & (limit < left.tail_distance(expected)))


def epsilon_cutoff(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """What has at least probability `epsilon_cutoff` (Hewitt et al. 2022)."""
    left.keep_above(np.log(least) + np.log(left.mass))


def eta_cutoff(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """What has at least probability min(eta, sqrt(eta) exp(-entropy)) (Hewitt et al. 2022)."""
    cutoff = np.minimum(np.log(least), np.log(least) / 2 - left.entropy)
    left.keep_above(cutoff + np.log(left.mass))


def xtc(left: Candidates, least: Array, _draws: Sequence[Draw]) -> None:
    """Remove all tokens with at least probability `xtc_threshold` but the least likely of them (p-e-w 2024)."""
    is_top = left.values >= np.log(least) + np.log(left.mass)
    is_last = is_top & (is_top[:, ::-1].cumsum(-1)[:, ::-1] == 1)
    left.is_decided &= ~left.has_tail | ~is_top[:, -1:]
    left.remove(is_top & ~is_last)


def mirostat(left: Candidates, _taus: Array, draws: Sequence[Draw]) -> None:
    """What surprises by at most `mu` bits (Basu et al. 2020, version 2); see `next_mu` for the other half."""
    bounds = np.array([[mu_of(draw)] for draw in draws])
    left.keep_above(np.log(left.mass) - bounds * math.log(2))


def mu_of(draw: Draw) -> float:
    """Mirostat's bound for this draw."""
    return 2 * draw.sampler.mirostat_tau if draw.mirostat_mu is None else draw.mirostat_mu


def next_mu(draw: Draw, probability: float) -> float:
    """Mirostat's bound after a token was drawn that had this probability among those that were left."""
    return mu_of(draw) - draw.sampler.mirostat_eta * (-math.log2(probability) - draw.sampler.mirostat_tau)


Step = Callable[[Candidates, Array, Sequence[Draw]], None]
"""One truncation, with the parameter of each row [rows, 1]."""
STEPS: dict[str, Step] = {
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
    "epsilon_cutoff": epsilon_cutoff,
    "eta_cutoff": eta_cutoff,
    "xtc_threshold": xtc,
    "mirostat_tau": mirostat,
}
"""By the parameter of the sampler that says whether they happen, in the order of `Sampler.truncations`."""
NEEDS_ENTROPY = frozenset({"typical_p", "eta_cutoff"})


def steps_of(draw: Draw) -> tuple[str, ...]:
    """The parameters of the steps that this draw takes. Whether XTC happens is up to chance."""
    steps = draw.sampler.truncations
    if draw.xtc_uniform < draw.sampler.xtc_probability:
        return steps
    return tuple(name for name in steps if name != "xtc_threshold") if draw.sampler.xtc_probability else steps
