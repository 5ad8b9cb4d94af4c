"""From the logits of a step to the results of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from pie_engine.driver.base import Row, RowResult, Sample
from pie_engine.protocol.sampling import NOTHING_PROBED
from pie_engine.sampling import probes
from pie_engine.sampling.sampler import FAULTS, Choose, sample

_is_plain = attrgetter("is_plain")


def sample_rows(logits: np.ndarray, rows: Sequence[Row], choose: Choose | None = None) -> list[RowResult]:
    """Sample as each of `rows` asks: `logits` [positions, vocab], one more than it has drafts of each, and so many
    results. `choose`: see `sampling.sampler.sample`."""
    if choose is not None and rows and len(logits) == len(rows):
        samplers = [row.sampler for row in rows if row.sampler is not None and row.mask is None]
        if len(samplers) == len(rows) and all(map(_is_plain, samplers)):
            tokens = choose(logits, samplers, [row.uniform for row in rows])
            return [RowResult(token) if token >= 0 else RowResult(error=FAULTS[token]) for token in tokens]
    drawn = sample(logits, [draw for row in rows for draw in row.draws()], choose)
    return [RowResult(one.token, None, NOTHING_PROBED, one.mirostat_mu, (), one.fault) for one in drawn]


def look(
    logits: np.ndarray, states: Tensor | None, rows: Sequence[Row], results: Sequence[RowResult]
) -> list[RowResult]:
    """One result for each of `rows`, with what it wants to know besides; `results` are those of `sample_rows`, and
    `states` [positions, hidden size]."""
    of_rows, at = list[RowResult](), 0
    for row in rows:
        end = at + len(row.draft_uniforms) + 1
        for place in range(at, end):
            if results[place].token is not None:
                said = torch.from_numpy(logits[place])
                _look_at(row, results[place], said, None if states is None else states[place], place - at)
        *before, result = results[at:end]
        if before:
            result.error = next((each.error for each in (result, *before) if each.error is not None), None)
            result.before_drafts = [
                Sample(each.token, each.logprob, each.probed) for each in before if each.token is not None
            ]
        of_rows.append(result)
        at = end
    return of_rows


def _look_at(row: Row, result: RowResult, logits: Tensor, state: Tensor | None, index: int) -> None:
    """Put in what `row` wants to know besides the token of its draw `index`."""
    assert result.token is not None
    if row.want_logprob:
        result.logprob = probes.logprobs(logits, [result.token])[0]
    if not row.probes.is_empty:
        mask = row.draws()[index].mask if row.probes.of_allowed else None
        result.probed = probes.probed(logits, state, row.probes, mask)
