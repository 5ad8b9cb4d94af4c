"""The runtime component, built once per content and versions into the temporary folder."""

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from wasmtime import Config, Engine, Store, WasiConfig
from wasmtime.component import Component

HERE = Path(__file__).parent
TOOLS = ("wasmtime", "componentize-py")


def make_engine() -> Engine:
    config = Config()
    config.epoch_interruption = True
    return Engine(config)


def load(engine: Engine) -> Component:
    compiled = cached_path("cwasm")
    if not compiled.exists():
        compiled.write_bytes(Component.from_file(engine, build()).serialize())
    return Component.deserialize_file(engine, str(compiled))


def build() -> Path:
    wasm = cached_path("wasm")
    if not wasm.exists():
        tool = Path(sys.executable).with_name("componentize-py")
        subprocess.run(
            [tool, "-q", "-d", HERE / "wit", "-w", "program", "componentize", "guest", "-p", HERE, "-o", wasm],
            check=True,
            stdout=sys.stderr,
        )
    return wasm


def cached_path(suffix: str) -> Path:
    digest = hashlib.sha256(" ".join(version(tool) for tool in TOOLS).encode())
    for source in (HERE / "guest.py", HERE / "wit" / "program.wit"):
        digest.update(source.read_bytes())
    folder = Path(tempfile.gettempdir()) / "pie-host-experiment"
    folder.mkdir(exist_ok=True)
    return folder / f"{digest.hexdigest()[:16]}.{suffix}"


def make_store(engine: Engine, memory_limit_bytes: int | None = None) -> Store:
    store = Store(engine)
    store.set_wasi(WasiConfig())
    store.set_epoch_deadline(1)
    if memory_limit_bytes:
        store.set_limits(memory_size=memory_limit_bytes)
    return store
