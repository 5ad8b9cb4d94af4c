"""A host with everything that it runs programs with: the engine, the runtime, and guests ahead of need."""

from __future__ import annotations

from collections.abc import Callable

from wasmtime.component import Component

from pie_engine.config import MIB, EngineConfig
from pie_engine.host.components import ComponentRunners
from pie_engine.host.engine import Ticker, new_engine
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.host import Host
from pie_engine.host.imports import Imports
from pie_engine.host.interfaces import INTERFACES
from pie_engine.host.programs import remove_unused_data
from pie_engine.host.runtime import Progress, load_runtime
from pie_engine.host.warm import WarmGuests


def make_host(config: EngineConfig, progress: Progress, on_stuck: Callable[[], None] | None) -> tuple[Host, Ticker]:
    """The ticker is to be closed after the host. `on_stuck`: see `Ticker`.

    The runtime is built where the cache does not hold it, which takes a minute. Raises what `load_runtime` raises.
    """
    cache = config.paths.cache
    engine = new_engine()
    component = load_runtime(engine, cache, progress)
    data = cache / "programs"
    remove_unused_data(data)
    ticker = Ticker(engine, on_stuck)

    def new_runner(component: Component) -> FibreRunner:
        return FibreRunner(ticker, component, Imports(INTERFACES), config.host.memory_mb * MIB)

    warm = WarmGuests(new_runner(component), data, config.host.warm_instances)
    return Host(config, warm, ComponentRunners(engine, cache, new_runner)), ticker
