"""The pure reducer: snapshots in, views out. It reads no clock, and what it remembers is bounded."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from pie_cli.monitor import diagnosis
from pie_cli.monitor.percentiles import percentiles, since
from pie_cli.monitor.series import Marks
from pie_cli.monitor.tracks import SLOW_S, HostTrack, ModelTrack, ProgramTrack, per_second
from pie_cli.monitor.view import Finding, Happening, HostView, ModelView, Row, Saved, Service, ServiceHistory, View
from pie_engine.protocol.http import ContextView
from pie_engine.protocol.stats import HostState, ModelState, ProgramState, Requests, Snapshot

LATENCY_S = 60.0
DIAGNOSIS_S = 1.0
KEPT_S = 5.0
"""So long a finding stays after it was seen last: what comes and goes several times a second can be read as well."""
ROWS_S = 0.45
"""Programs are looked at about twice a second, however fast snapshots come: there may be hundreds, and faster than that
nobody reads."""
NUM_HAPPENINGS = 500

CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")
"""Before the sentence of an incident; the log has one of its own."""


class Reducer:
    """Gives the view that belongs to each snapshot of a stream; the same stream gives the same views."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None
        self._view: View | None = None
        self._models: dict[str, ModelTrack] = {}
        self._hosts: dict[str, HostTrack] = {}
        self._programs: dict[str, ProgramTrack] = {}
        self._history = ServiceHistory()
        self._log: deque[Happening] = deque(maxlen=NUM_HAPPENINGS)
        self._slow: Marks[Requests] | None = None
        self._minute: Marks[Requests] | None = None
        self._saved: Saved | None = None
        self._saved_names: frozenset[str] | None = None
        self._findings: tuple[Finding, ...] = ()
        self._seen: dict[str, tuple[float, list[Finding]]] = {}
        """By code: when it was found last, and what was."""
        self._diagnosed_at = 0.0

    @property
    def view(self) -> View | None:
        """The newest one."""
        return self._view

    def note_saved(self, contexts: Sequence[ContextView]) -> None:
        """The saved contexts of now, which are in no snapshot; in the next view."""
        saved_at = {f"{context.model} {context.name}": context.saved for context in contexts}
        known = saved_at.keys() if self._saved_names is None else self._saved_names
        before = self._saved or Saved(0, 0)
        new = saved_at.keys() - known
        self._saved_names = frozenset(saved_at)
        self._saved = Saved(
            len(contexts),
            sum(context.bytes for context in contexts),
            before.num_new + len(new),
            before.num_deleted + len(known - saved_at.keys()),
            max(contexts, key=lambda context: context.saved).name if contexts else "",
            max((saved_at[name] for name in new), default=before.grown_at),
        )

    def apply(self, snapshot: Snapshot) -> View:
        """One more snapshot. One that came already, or is older than the last one of its gateway, changes nothing."""
        last = self._last
        if last is not None and self._view is not None and snapshot.boot == last.boot and snapshot.at <= last.at:
            return self._view
        self._note_changes(last, snapshot)
        if last is None or snapshot.boot != last.boot:
            self._slow = self._minute = None
        models = tuple(self._model(snapshot.at, model) for model in snapshot.models)
        rows, rows_at = self._rows_now(snapshot)
        hosts = tuple(self._host(snapshot.at, host) for host in snapshot.hosts)
        service = self._service(snapshot.at, snapshot.requests, models)
        view = View(snapshot, models, hosts, rows, rows_at, service, self._history, self._log, self._saved)
        self._view = replace(view, findings=self._diagnosis(view))
        self._last = snapshot
        return self._view

    def _model(self, at: float, now: ModelState) -> ModelView:
        track = self._models.get(now.name)
        if track is None or track.boot != now.boot:
            history = track.history if track else None
            track = self._models[now.name] = ModelTrack(at, now)
            if history is not None:
                # A core that started again goes on in the same picture; its counters began anew.
                track.history = history
        return track.apply(at, now)

    def _host(self, at: float, now: HostState) -> HostView:
        track = self._hosts.get(now.name)
        if track is None or track.boot != now.boot:
            track = self._hosts[now.name] = HostTrack(at, now)
        return track.apply(at, now)

    def _rows_now(self, snapshot: Snapshot) -> tuple[tuple[Row, ...], float]:
        """Those of the view before, or new ones; and when they were made."""
        before = self._view
        if before is not None and 0 <= snapshot.at - before.rows_at < ROWS_S:
            return before.rows, before.rows_at
        of_programs: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for program in snapshot.programs:
            of_programs[program.model][program.pid] = program.num_batch_tokens
        for model in snapshot.models:
            self._models[model.name].look(snapshot.at, model, of_programs[model.name])
        return self._rows(snapshot), snapshot.at

    def _rows(self, snapshot: Snapshot) -> tuple[Row, ...]:
        num_models = Counter(program.pid for program in snapshot.programs)
        at, tracks = snapshot.at, {}
        shares = {model.name: self._models[model.name].shares for model in snapshot.models}
        rows = []
        for program in snapshot.programs:
            key = f"{program.pid} {program.model}" if num_models[program.pid] > 1 else program.pid
            track = self._programs.get(key)
            if track is None or _began_anew(track.now, program):
                track = ProgramTrack(at, program)
            elif program.num_moved_out > track.now.num_moved_out:
                self._log.append(_moved_out(at, program, program.num_moved_out - track.now.num_moved_out))
            tracks[key] = track
            rows.append(track.apply(at, program, key, shares.get(program.model)))
        self._programs = tracks
        return tuple(rows)

    def _service(self, at: float, now: Requests, models: tuple[ModelView, ...]) -> Service:
        slow = self._slow = self._slow or Marks(at, now, SLOW_S)
        minute = self._minute = self._minute or Marks(at, now, LATENCY_S)
        seconds, before = at - slow.at, slow.value
        old = minute.value
        errors = {code: number - old.errors.get(code, 0) for code, number in now.errors.items()}
        service = Service(
            now,
            per_second(now.num_launched - before.num_launched, seconds),
            per_second(now.num_returned - before.num_returned, seconds),
            per_second(now.num_failed - before.num_failed, seconds),
            {code: number for code, number in errors.items() if number > 0},
            now.num_returned + now.num_failed - old.num_returned - old.num_failed,
            percentiles(since(now.ttft_s, old.ttft_s)),
            percentiles(since(now.tpot_s, old.tpot_s)),
            percentiles(since(now.queue_s, old.queue_s)),
        )
        slow.move(at, now)
        minute.move(at, now)
        self._remember(at, service, models)
        return service

    def _remember(self, at: float, service: Service, models: tuple[ModelView, ...]) -> None:
        history = self._history
        history.launches_s.add(at, service.launches_s)
        history.failures_s.add(at, service.failures_s)
        history.tokens_s.add(at, sum(model.rates.decode * model.rates.steps_s for model in models))
        if service.ttft:
            history.ttft_ms.add(at, service.ttft.p50 * 1000)
        if service.tpot:
            history.tpot_ms.add(at, service.tpot.p50 * 1000)

    def _diagnosis(self, view: View) -> tuple[Finding, ...]:
        """Once a second, so that its sentences can be read."""
        if not 0 <= view.at - self._diagnosed_at < DIAGNOSIS_S:
            self._diagnosed_at = view.at
            self._findings = diagnosis.gravest_first(self._found_lately(view))
        return self._findings

    def _found_lately(self, view: View) -> list[Finding]:
        found: defaultdict[str, list[Finding]] = defaultdict(list)
        for finding in diagnosis.findings(view):
            found[finding.code].append(finding)
        kept = {code: each for code, each in self._seen.items() if 0 <= view.at - each[0] < KEPT_S}
        self._seen = kept | {code: (view.at, each) for code, each in found.items()}
        return [finding for code in diagnosis.CODES if code in self._seen for finding in self._seen[code][1]]

    def _note_changes(self, last: Snapshot | None, now: Snapshot) -> None:
        """Restarts and incidents, into the log."""
        if last is None:
            return
        if now.boot != last.boot:
            self._log.append(Happening(now.at, "gateway", "the gateway started again"))
        self._note_restarts(now.at, "core", last.models, now.models)
        self._note_restarts(now.at, "host", last.hosts, now.hosts)
        known = set(last.incidents)
        for text in now.incidents:
            if text not in known:
                self._log.append(Happening(now.at, "incident", CLOCK.sub("", text)))

    def _note_restarts(
        self, at: float, kind: str, last: tuple[ModelState | HostState, ...], now: tuple[ModelState | HostState, ...]
    ) -> None:
        boots = {each.name: each.boot for each in last}
        for each in now:
            if boots.get(each.name, each.boot) != each.boot:
                self._log.append(Happening(at, kind, f"{kind} {each.name} started again"))


def _began_anew(before: ProgramState, now: ProgramState) -> bool:
    """Its core was started again: what it counted there is gone."""
    return now.num_batch_tokens < before.num_batch_tokens or now.num_generated < before.num_generated


def _moved_out(at: float, program: ProgramState, number: int) -> Happening:
    lost = "a context" if number == 1 else f"{number} contexts"
    text = f"{program.program} had {lost} moved out"
    return Happening(at, "moved", text, program.pid)
