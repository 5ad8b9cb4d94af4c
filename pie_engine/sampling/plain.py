"""The sampler by its definitions, over a dictionary of logits: slow, short, and without torch or NumPy.

The fake driver chooses with it, and the tests hold the fast one against it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from pie_engine.protocol.sampling import Sampler
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw, Drawn, is_allowed

Logits = dict[int, float]
Probabilities = dict[int, float]
"""Likeliest first."""


def choose(logits: Mapping[int, float], draw: Draw) -> Drawn:
    """One token of `logits`, which may leave out what is impossible."""
    if not logits or not math.isfinite(max(logits.values(), key=lambda value: (value != value, value))):
        return Drawn(fault=NO_DISTRIBUTION)
    left = adjusted(logits, draw) if draw.is_adjusted else dict(logits)
    if not left:
        return Drawn(fault=NOTHING_ALLOWED)
    if draw.sampler.is_greedy:
        return Drawn(max(left, key=left.__getitem__))
    probabilities = distribution(left, draw)
    token = _inverse_cdf(probabilities, draw.uniform)
    return Drawn(token, mirostat_mu=_next_mu(draw, probabilities[token]) if draw.sampler.mirostat_tau else None)


def adjusted(logits: Mapping[int, float], draw: Draw) -> Logits:
    """The logits of what may be chosen, after bias and penalties."""
    sampler = draw.sampler
    banned = {token for token in logits if not may_choose(draw, token)}
    bias, counts = sampler.logit_bias, _Counts(draw)
    left = {token: logit + bias.get(token, 0.0) for token, logit in logits.items() if token not in banned}
    for token, logit in left.items():
        value = logit
        if token in counts.seen:
            value = value * sampler.repetition_penalty if value < 0 else value / sampler.repetition_penalty
        value -= sampler.frequency_penalty * counts.generated[token]
        value -= sampler.presence_penalty * (counts.generated[token] > 0)
        left[token] = value - _dry(counts.window, token, sampler)
    return {token: value for token, value in left.items() if value > -math.inf}


def may_choose(draw: Draw, token: int) -> bool:
    """Whether mask, allowed and banned tokens leave this one."""
    sampler = draw.sampler
    return (
        (draw.mask is None or is_allowed(draw.mask, token))
        and (sampler.allowed_tokens is None or token in sampler.allowed_tokens)
        and token not in sampler.banned_tokens
        and sampler.logit_bias.get(token, 0.0) > -math.inf
    )


class _Counts:
    def __init__(self, draw: Draw) -> None:
        start = max(0, len(draw.history) - draw.sampler.penalty_window) if draw.sampler.penalty_window else 0
        self.window = list(draw.history[start:])
        self.seen = set(self.window)
        self.generated = Counter(draw.history[max(start, draw.prompt_length) :])


def _dry(window: list[int], token: int, sampler: Sampler) -> float:
    """The longest end of `window` that is there before, followed by `token`."""
    longest = 0
    for at in range(1, len(window)) if sampler.dry_multiplier and token not in sampler.dry_breakers else ():
        length = 0
        while window[at] == token and length < min(at, 50) and window[at - 1 - length] == window[-1 - length]:
            if window[-1 - length] in sampler.dry_breakers:
                break
            length += 1
        longest = max(longest, length)
    if not longest or longest < sampler.dry_allowed_length:
        return 0.0
    return sampler.dry_multiplier * sampler.dry_base ** (longest - sampler.dry_allowed_length)


def distribution(logits: Mapping[int, float], draw: Draw) -> Probabilities:
    """What is left after the truncations, by probability."""
    sampler = draw.sampler
    highest = max(logits.values())
    left = _normalized({t: math.exp((value - highest) / sampler.temperature) for t, value in logits.items()})
    if sampler.top_k:
        left = _normalized(dict(list(left.items())[: sampler.top_k]))
    if sampler.top_p < 1:
        left = _until(left, list(left), sampler.top_p)
    if sampler.min_p:
        left = _at_least(left, sampler.min_p * max(left.values()))
    if sampler.typical_p < 1:
        left = _typical(left, sampler.typical_p)
    if sampler.epsilon_cutoff:
        left = _at_least(left, sampler.epsilon_cutoff)
    if sampler.eta_cutoff:
        left = _at_least(left, min(sampler.eta_cutoff, math.sqrt(sampler.eta_cutoff) * math.exp(-_entropy(left))))
    if draw.xtc_uniform < sampler.xtc_probability:
        top = [token for token, p in left.items() if p >= sampler.xtc_threshold]
        left = _normalized({token: p for token, p in left.items() if token not in top[:-1]})
    if sampler.mirostat_tau:
        left = _at_least(left, 2.0 ** -_mu(draw))
    return left


def _normalized(weights: Mapping[int, float]) -> Probabilities:
    total = math.fsum(weights.values())
    order = sorted((token for token in weights if weights[token] > 0), key=lambda token: -weights[token])
    return {token: weights[token] / total for token in order}


def _until(left: Probabilities, order: list[int], mass: float) -> Probabilities:
    """The first tokens of `order` that together reach `mass`."""
    kept: dict[int, float] = {}
    reached = 0.0
    for token in order:
        if kept and reached >= mass:
            break
        kept[token] = left[token]
        reached += left[token]
    return _normalized(kept)


def _at_least(left: Probabilities, least: float) -> Probabilities:
    kept = {token: p for index, (token, p) in enumerate(left.items()) if p >= least or index == 0}
    return _normalized(kept)


def _typical(left: Probabilities, mass: float) -> Probabilities:
    entropy = _entropy(left)
    return _until(left, sorted(left, key=lambda token: abs(-math.log(left[token]) - entropy)), mass)


def _entropy(left: Probabilities) -> float:
    return -math.fsum(p * math.log(p) for p in left.values())


def _mu(draw: Draw) -> float:
    return 2 * draw.sampler.mirostat_tau if draw.mirostat_mu is None else draw.mirostat_mu


def _next_mu(draw: Draw, probability: float) -> float:
    return _mu(draw) - draw.sampler.mirostat_eta * (-math.log2(probability) - draw.sampler.mirostat_tau)


def _inverse_cdf(probabilities: Probabilities, uniform: float) -> int:
    below = 0.0
    for token, probability in probabilities.items():
        below += probability
        if uniform < below:
            return token
    return next(reversed(probabilities))
