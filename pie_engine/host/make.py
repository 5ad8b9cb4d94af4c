"""A host with everything that it runs programs with: the engine, the runtime, and guests ahead of need."""

from __future__ import annotations

from collections.abc import Callable

from wasmtime.component import Component

from pie_engine.builder.componentize import Progress
from pie_engine.config import MIB, EngineConfig
from pie_engine.host.components import ComponentRunners
from pie_engine.host.engine import STUCK_S, Ticker, new_engine
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.guests import Guests
from pie_engine.host.host import Host
from pie_engine.host.imports import Imports
from pie_engine.host.interfaces import INTERFACES
from pie_engine.host.native import native_functions
from pie_engine.host.programs import remove_unused_data
from pie_engine.host.recorded import RecordedRunners
from pie_engine.host.runtime import load_runtime
from pie_engine.host.warm import WarmGuests


def make_host(
    config: EngineConfig,
    progress: Progress,
    on_stuck: Callable[[str, float], None] | None,
    *,
    only_components: bool = False,
) -> tuple[Host, Ticker]:
    """The ticker is to be closed after the host.

    on_stuck: told of the process that does not yield and for how long, as `Ticker` does it.
    only_components: it runs no Python programs, so it needs no runtime, and who blocks it may do so for `kill_grace_s`.
    The runtime is built where the cache does not hold it, which takes a minute. Raises what `load_runtime` raises.
    """
    cache = config.paths.cache
    engine = new_engine()
    runtime = None if only_components else load_runtime(engine, cache, progress)
    data = cache / "programs"
    remove_unused_data(data)
    stuck_s = config.host.kill_grace_s if only_components else STUCK_S

    def tell_stuck() -> None:
        if on_stuck is not None:
            on_stuck(host.running, stuck_s)

    ticker = Ticker(engine, tell_stuck, stuck_s=stuck_s)

    def new_runner(component: Component) -> FibreRunner:
        return FibreRunner(ticker, component, Imports(INTERFACES), config.host.memory_mb * MIB)

    def new_recorded_runner(component: Component) -> FibreRunner:
        imports = Imports(INTERFACES, with_surroundings=True)
        return FibreRunner(ticker, component, imports, config.host.memory_mb * MIB)

    if runtime is None:
        warm = WarmGuests(None, data, 0)
    else:
        warm = WarmGuests(new_runner(runtime), data, config.host.warm_instances)
    recorded = RecordedRunners(engine, runtime, cache, new_recorded_runner)
    native = native_functions(engine, runtime, INTERFACES) if runtime is not None else {}
    host = Host(config, Guests(warm, ComponentRunners(engine, cache, new_runner), recorded, native))
    return host, ticker
