"""What the reducer remembers of each program, core and host between two snapshots."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from pie_cli.monitor.series import Marks, Series
from pie_cli.monitor.shares import Look, Shares
from pie_cli.monitor.view import ELSEWHERE, HostView, ModelHistory, ModelView, Phase, ProgramHistory, Row, StepRates
from pie_engine.protocol.stats import Batches, HostState, ModelState, ProgramState

FAST_S, SLOW_S = 0.95, 10.0
"""A bit less than a second: snapshots do not come exactly twice in one."""
PEAK_S = 2.0
PROGRAM_STEP_S = 4.0
NUM_PROGRAM_POINTS = 150
"""Ten minutes of each program: there may be hundreds."""
NUM_PHASES = 200


class ModelTrack:
    """Of one core, from its boot on."""

    def __init__(self, at: float, now: ModelState) -> None:
        self.boot = now.boot
        self.history = ModelHistory()
        self._fast: Marks[ModelState] = Marks(at, now, FAST_S)
        self._slow: Marks[ModelState] = Marks(at, now, SLOW_S)
        self._peaks: deque[tuple[float, int]] = deque()
        self.shares: Shares | None = None
        """None: nobody has looked at its programs."""

    def look(self, at: float, now: ModelState, of_programs: Mapping[str, int]) -> None:
        """At all programs at once. `of_programs`: tokens that ran for each of them, by pid."""
        look = Look(now.num_looked_tokens, of_programs)
        if self.shares is None:
            self.shares = Shares(at, FAST_S, SLOW_S, look)
        self.shares.apply(at, look, now.batches.num_tokens)

    def apply(self, at: float, now: ModelState) -> ModelView:
        fast, slow = self._fast, self._slow
        rates = _rates(at - fast.at, fast.value.batches, now.batches)
        before = slow.value
        pages, old_pages = now.pages, before.pages
        num_hits, num_misses = pages.num_hits - old_pages.num_hits, pages.num_misses - old_pages.num_misses
        view = ModelView(
            now,
            rates,
            _rates(at - slow.at, before.batches, now.batches),
            self._peak(at, now.batches.peak_sequences),
            per_second(now.cpu_s - fast.value.cpu_s, at - fast.at),
            num_hits / (num_hits + num_misses) if num_hits + num_misses > 0 else None,
            per_second(now.market.rent - fast.value.market.rent, at - fast.at),
            max(pages.num_preemptions - old_pages.num_preemptions, 0),
            max(now.market.num_moved_out - before.market.num_moved_out, 0),
            self.history,
        )
        self._remember(at, view)
        fast.move(at, now)
        slow.move(at, now)
        return view

    def _peak(self, at: float, peak: int) -> int:
        self._peaks.append((at, peak))
        while self._peaks[0][0] < at - PEAK_S:
            self._peaks.popleft()
        return max(each for _, each in self._peaks)

    def _remember(self, at: float, view: ModelView) -> None:
        history, rates = self.history, view.rates
        history.prefill.add(at, rates.prefill)
        history.decode.add(at, rates.decode)
        history.draft.add(at, rates.draft)
        history.sequences.add(at, rates.sequences)
        history.step_ms.add(at, rates.step_s * 1000)
        history.gap_ms.add(at, rates.gap_s * 1000)
        history.tokens_s.add(at, rates.tokens_s)
        history.used_pages.add(at, view.num_used_pages)
        history.price.add(at, view.now.market.price)
        history.rent_s.add(at, view.rent_s)


class HostTrack:
    """Of one host, from its boot on."""

    def __init__(self, at: float, now: HostState) -> None:
        self.boot = now.boot
        self._fast: Marks[HostState] = Marks(at, now, FAST_S)

    def apply(self, at: float, now: HostState) -> HostView:
        view = HostView(now, per_second(now.cpu_s - self._fast.value.cpu_s, at - self._fast.at))
        self._fast.move(at, now)
        return view


class ProgramTrack:
    """Of one program on one model."""

    def __init__(self, at: float, now: ProgramState) -> None:
        self.now = now
        self._fast: Marks[ProgramState] = Marks(at, now, FAST_S)
        self._slow: Marks[ProgramState] = Marks(at, now, SLOW_S)
        # Who is queued has been so since its launch, whenever somebody has begun to look.
        since = now.created if now.state == "queued" else at
        self._phases: deque[Phase] = deque([Phase(since, now.state)], maxlen=NUM_PHASES)
        self.history = ProgramHistory(self._phases, *(Series(PROGRAM_STEP_S, NUM_PROGRAM_POINTS) for _ in range(4)))

    def apply(self, at: float, now: ProgramState, key: str, shares: Shares | None) -> Row:
        """`shares`: of its model, which have looked at it."""
        before, self.now = self.now, now
        fast, slow = self._fast, self._slow
        seconds = at - fast.at
        old, older = fast.value, slow.value
        # Who waits again, and was in the batches meanwhile, has not waited all the time.
        was_back = now.state in ELSEWHERE and now.num_batch_tokens > before.num_batch_tokens
        if now.state != self._phases[-1].state or was_back:
            self._phases.append(Phase(at, now.state))
        row = Row(
            key,
            now,
            at - now.created,
            at - self._phases[-1].since,
            per_second(now.num_generated - old.num_generated, seconds),
            shares.of(now.pid) if shares else None,
            shares.slow_of(now.pid) if shares else 0.0,
            now.num_contexts - older.num_contexts,
            _part(now.num_cached, now.num_prompt),
            _part(now.num_accepted, now.num_drafted),
            per_second(now.rent - old.rent, seconds),
            per_second(now.dividends - old.dividends, seconds),
            self.history,
        )
        self._remember(at, row)
        fast.move(at, now)
        slow.move(at, now)
        return row

    def _remember(self, at: float, row: Row) -> None:
        history, now = self.history, row.now
        history.tokens_s.add(at, row.tokens_s)
        history.pages.add(at, now.num_pages)
        history.bid.add(at, now.bid)
        history.balance.add(at, now.balance)


def per_second(grown: float, seconds: float) -> float:
    """0 where no time has passed, and where a counter has begun anew."""
    return grown / seconds if seconds > 0 and grown > 0 else 0.0


def _part(part: float, whole: float) -> float | None:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else None


def _rates(seconds: float, before: Batches, now: Batches) -> StepRates:
    num_steps = now.num_steps - before.num_steps
    if seconds <= 0 or num_steps <= 0:
        return StepRates()
    step_s = now.step_s - before.step_s
    return StepRates(
        num_steps / seconds,
        (now.num_prefill_tokens - before.num_prefill_tokens) / num_steps,
        (now.num_decode_tokens - before.num_decode_tokens) / num_steps,
        (now.num_draft_tokens - before.num_draft_tokens) / num_steps,
        (now.num_sequences - before.num_sequences) / num_steps,
        step_s / num_steps,
        (now.gap_s - before.gap_s) / num_steps,
        min(step_s / seconds, 1.0),
        (now.num_tokens - before.num_tokens) / seconds,
    )
