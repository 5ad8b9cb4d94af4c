"""The whole engine in one process and one thread: a host with its sandbox, and a core for each model.

    with Embedded() as engine:
        engine.load(ModelSection(driver="fake", name="fake"), FakeScript(replies=(Reply("Hello!"),)))
        process = engine.launch(pack("hello"), {"prompt": "Hi"})
        process.wait()

There is no gateway, no socket and no daemon. The loops of host and core are the daemon's own and take turns here, so
programs, their limits and their errors are what they are there. Tests and replays run programs so.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType

import msgspec

from pie_engine.builder.componentize import Progress
from pie_engine.config import EngineConfig, HostSection, ModelSection, Paths, SchedulingSection, load_paths
from pie_engine.core.load import load_core
from pie_engine.core.loop import Core, DeviceFailed
from pie_engine.driver.base import Driver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.embedded.fake import load_fake
from pie_engine.embedded.interrupts import Interrupts
from pie_engine.embedded.process import EmbeddedProcess
from pie_engine.errors import Internal, NotFound, PieError
from pie_engine.host.make import make_host
from pie_engine.host.models import HostModel
from pie_engine.host.process import Process
from pie_engine.host.tap import Tap, Taps
from pie_engine.hub.places import resolve
from pie_engine.protocol.credits import endowment_of
from pie_engine.protocol.program import Bundle, is_named
from pie_engine.protocol.to_gateway import Event, LaunchChild
from pie_engine.protocol.to_host import (
    ChildRefused,
    Deliver,
    EventsSeen,
    EventsStored,
    Launch,
    Secrets,
    Terminate,
    TraceKind,
)

SLICE_S = 0.005
"""Programs run for no longer than this before the models have their turn."""
LOOK_S = 0.001
"""How often is looked for what other threads do: grammars, saved contexts, compiled components."""
HOST = "host"
USER = "user"


class Embedded:
    """An engine without models until one is loaded. A context manager. Not thread-safe.

    host: limits of the programs, and how many guests are kept warm.
    scheduling: who gets the batch and the pages.
    home: where contexts are saved; by default a folder that goes with the engine.
    progress: told what takes long.
    Raises `InvalidConfig` when the runtime is not in the cache and cannot be written there.
    """

    def __init__(
        self,
        host: HostSection | None = None,
        *,
        scheduling: SchedulingSection | None = None,
        home: Path | None = None,
        progress: Progress = lambda text, fraction: None,
    ) -> None:
        users = load_paths()
        self._models_at = users
        self._is_own_home = home is None
        self._home = Path(tempfile.mkdtemp(prefix="pie-embedded-")) if home is None else home
        self._paths = Paths(self._home, users.cache)
        self._scheduling = scheduling or SchedulingSection()
        config = EngineConfig(
            models=(),
            host=host or HostSection(),
            scheduling=self._scheduling,
            home=str(self._home),
            cache=str(users.cache),
        )
        self.host, self._ticker = make_host(config, progress, None)
        self._progress = progress
        self._cores: dict[str, _LoadedCore] = {}
        """By the name of the model, the default one first."""
        self._processes: dict[str, EmbeddedProcess] = {}
        self._published: dict[tuple[str, str], Bundle] = {}
        """By user and `name`, or `name@version`: what programs of that user can launch."""
        self._numbers = itertools.count(1)
        self.num_passes = 0
        """Steps that the models have run."""
        self._interrupts = Interrupts()
        self._is_closed = False

    # Models.

    def load(self, section: ModelSection, script: FakeScript | None = None) -> None:
        """A model for the programs that are launched from here on, in place of the one that has its name.

        The first one that is loaded is the default. `script`: what the fake driver does. Raises what loading a model
        raises.
        """
        self.unload(section.label)
        path = resolve(section.path, self._models_at)
        section = msgspec.structs.replace(section, path=str(path), name=section.label)
        self._cores[section.name] = self._loaded(section, script)
        self.host.cores.configure(list(self._cores))

    def unload(self, name: str) -> None:
        """Its programs end with `core_lost`. Nothing happens when there is no such model."""
        core = self._cores.pop(name, None)
        if core is not None:
            self.host.lose_core(core.boot_id)
            core.check()
        self.host.cores.configure(list(self._cores))

    @property
    def models(self) -> list[str]:
        """The loaded ones, the default first."""
        return list(self._cores)

    def model(self, name: str) -> Core:
        """The core of a loaded model, to look at."""
        return self._cores[name].core

    def driver(self, name: str) -> Driver:
        """What runs a loaded model."""
        return self._cores[name].core.driver

    def _loaded(self, section: ModelSection, script: FakeScript | None) -> _LoadedCore:
        if section.driver == "fake" and not section.draft_model:
            core, detail = load_fake(section, self._paths, script, self._scheduling)
        else:
            core, detail = load_core(section, self._paths, lambda stage: self._progress(stage, 0.0), self._scheduling)
        boot_id = f"{section.name}-{next(self._numbers)}"
        self.host.add_core(boot_id, HostModel.of_detail(detail))
        return _LoadedCore(boot_id, core, section, script)

    # Programs.

    def launch(
        self,
        bundle: Bundle,
        input: Mapping[str, object] | str | None = None,
        *,
        user: str = USER,
        pid: str | None = None,
        secrets: Mapping[str, str] | None = None,
        trace: Sequence[TraceKind] = (),
        native: str = "",
        watch: Callable[[Process], Tap] | None = None,
        seed: int | None = None,
        endowment: float | None = None,
    ) -> EmbeddedProcess:
        """Start a program with the arguments `input` of its `main`, or JSON of them. It runs in `turn`.

        What one `user` has saved, and the KV of what was read for it, another one does not find. `watch` makes a tap
        of the host's process, beside those of `trace`. With a `seed` models draw the same random numbers for it each
        time. `native`: the socket of a Python that runs it. `endowment`: its credits, if not those of its manifest, or
        of `user`. Raises `NotFound` when a secret that the manifest names is not in `secrets`, `InvalidInput` for no
        amount of credits.
        """
        secrets = secrets or {}
        given = _secrets_of(bundle, secrets)
        text = input if isinstance(input, str) else msgspec.json.encode(input or {}).decode()
        pid = pid or f"{bundle.manifest.name}-{next(self._numbers)}"
        process = self._processes[pid] = EmbeddedProcess(self, pid, secrets)
        quota = self._scheduling.quota_of(user)
        wish = bundle.manifest.endowment if endowment is None else endowment
        credits = endowment_of(quota.endowment if wish is None else wish)
        order = Launch(
            pid, user, bundle.digest, bundle, text, given, tuple(trace), native, credits, priority=quota.priority
        )
        self.host.receive_order(order)
        launched = self.host.processes.get(pid)
        if watch is not None and launched is not None:
            taps = [] if launched.tap is None else [launched.tap]
            launched.tap = Taps([*taps, watch(launched)])
        if seed is not None and launched is not None:
            launched.new_seed = partial(Random(seed).getrandbits, 64)
        return process

    def publish(self, bundle: Bundle, *, user: str = USER) -> None:
        """From here on programs of `user` that name it can launch it."""
        manifest = bundle.manifest
        for reference in (manifest.name, f"{manifest.name}@{manifest.version}"):
            self._published[user, reference] = bundle

    def turn(self) -> float | None:
        """Let everybody do what can be done now.

        Returns in how many seconds there will be something to do, 0: now; None: not before something comes from
        outside. Ctrl-C is raised at the end of a turn.
        """
        with self._interrupts:
            for number in self.host.guests.sockets:
                self.host.look_outside(number)
            self.host.run(SLICE_S)
            self._send()
            for core in list(self._cores.values()):
                self._step(core)
            self._tell()
            self.host.guests.bury()
            return self._seconds_left()

    def warm_up(self) -> None:
        """Make guests ahead of need, so that the next launches are as fast as a daemon's."""
        while not self.host.guests.is_warm:
            self.host.guests.warm_up()

    def close(self) -> None:
        """End all programs and give everything back. Nothing happens the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        for name in list(self._cores):
            self.unload(name)
        self.host.close()
        self._tell()
        self._ticker.close()
        if self._is_own_home:
            shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Embedded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self) -> None:
        """What the host has for the cores."""
        said = self.host.take_messages()
        for core in self._cores.values():
            if core.boot_id in said:
                core.core.receive(HOST, said[core.boot_id])

    def _receive(self, core: _LoadedCore) -> None:
        for results in core.core.take_outgoing().values():
            self.host.receive_results(core.boot_id, results)

    def _step(self, core: _LoadedCore) -> None:
        num_before = core.core.num_steps
        try:
            core.core.step()
        except DeviceFailed:
            self._restart(core)
            return
        self._receive(core)
        self.num_passes += core.core.num_steps - num_before
        num_used = core.core.pool.num_pages - core.core.pool.num_free
        for process in self._processes.values():
            process.saw_pages(core.section.name, num_used)

    def _restart(self, core: _LoadedCore) -> None:
        """As the daemon does with a core whose device has failed: programs hear of it first, and then end."""
        self._receive(core)
        self.host.run(SLICE_S)
        self.host.lose_core(core.boot_id)
        self._cores[core.section.name] = self._loaded(core.section, core.script_afterwards())

    def _tell(self) -> None:
        for report in self.host.take_reports():
            if isinstance(report, LaunchChild):
                self._answer(report)
            elif isinstance(report, Event) and (process := self._processes.get(report.pid)) is not None:
                process.take(report)
                self.host.receive_order(EventsStored(report.pid, report.seq))
                self.host.receive_order(EventsSeen(report.pid, report.seq))

    def _answer(self, wish: LaunchChild) -> None:
        """Launch the child that a program asks for, or say why not."""
        try:
            self._launch_child(wish)
        except PieError as error:
            self.host.receive_order(ChildRefused(wish.parent, wish.request, error.info))

    def _launch_child(self, wish: LaunchChild) -> None:
        parent, of_parent = self.host.processes.get(wish.parent), self._processes.get(wish.parent)
        if parent is None or of_parent is None:
            return
        own, user = parent.program.bundle, parent.job.user
        bundle = own if is_named(wish.program, own.manifest) else self._published.get((user, wish.program))
        if bundle is None:
            raise NotFound(
                f"no program `{wish.program}`",
                hint="an embedded engine knows those that it was given: `programs=` of `run`, `publish` of `Embedded`",
            )
        given = _secrets_of(bundle, of_parent.secrets)
        pid = f"{bundle.manifest.name}-{next(self._numbers)}"
        self._processes[pid] = EmbeddedProcess(self, pid, of_parent.secrets)
        order = Launch(pid, user, bundle.digest, bundle, wish.input, given, endowment=0, priority=parent.job.priority)
        linked = {"parent": wish.parent, "request": wish.request, "inherits": wish.endowment}
        self.host.receive_order(msgspec.structs.replace(order, **linked))
        launched = self.host.processes.get(pid)
        if launched is not None:  # what its parent's seed is, its own follows from
            launched.new_seed = partial(Random(parent.new_seed()).getrandbits, 64)

    def _seconds_left(self) -> float | None:
        """Until something is to be done without anything coming from outside."""
        cores = [core.core for core in self._cores.values()]
        if self.host.has_ready or any(not core.is_idle for core in cores):
            return 0.0
        times = [seconds for seconds in (self.host.seconds_left,) if seconds is not None]
        if self.host.guests.sockets or any(core.is_compiling or core.has_disk_work for core in cores):
            times.append(LOOK_S)
        now = time.monotonic()
        times += [max(0.0, core.next_due_at - now) for core in cores if core.next_due_at is not None]
        return min(times, default=None)

    # For processes.

    def say(self, order: Deliver | Terminate) -> None:
        self.host.receive_order(order)

    def forget(self, process: EmbeddedProcess) -> None:
        self._processes.pop(process.pid, None)


class _LoadedCore:
    """One model, from its load to its end."""

    def __init__(self, boot_id: str, core: Core, section: ModelSection, script: FakeScript | None) -> None:
        self.boot_id = boot_id
        self.core = core
        self.section = section
        self._script = script

    def script_afterwards(self) -> FakeScript | None:
        """Of the core that takes its place: faults count steps, and would strike again."""
        return None if self._script is None else msgspec.structs.replace(self._script, faults=())

    def check(self) -> None:
        """At its end nobody holds anything. Raises `Internal` saying what does not add up."""
        self.core.close_host(HOST)
        found = self.core.check_integrity()
        if found:
            raise Internal(f"the KV pages of {self.section.name} do not add up: {'; '.join(found)}")


def _secrets_of(bundle: Bundle, given: Mapping[str, str]) -> Secrets:
    """Those that the manifest names and no others, as the gateway hands them out."""
    wanted = bundle.manifest.secrets
    missing = [name for name in wanted if name not in given]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise NotFound(f"`{bundle.manifest.name}` needs the secret {listed}, which is not set", hint="give `secrets`")
    return Secrets({name: given[name] for name in wanted})
