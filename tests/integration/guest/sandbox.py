"""The runtime component in a sandbox of its own, with the SDK's fake host linked in."""

from __future__ import annotations

import dataclasses
import enum
import json
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wasmtime import Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant

from inferlet import errors
from inferlet.testing import FakeHost
from pie_engine.host.engine import new_engine
from pie_engine.host.runtime import load_runtime

CACHE = Path(__file__).parents[3] / "build" / "test-cache"
INTERFACES = {
    "futures": ["wait-any", "forget"],
    "model": ["list", "adapters", "describe", "encode", "decode", "render-chat"],
    "context": [
        *[
            "create",
            "append",
            "append-packed",
            "append-text",
            "encode",
            "flush",
            "finish-flush",
            "fork",
            "save",
            "finish-save",
            "open",
            "delete",
            "list-saved",
        ],
        *["place", "truncate", "drop", "slide", "release", "length", "tokens"],
    ],
    "generate": ["start", "next", "stop", "rewind", "inject", "draft", "pipe", "search", "finish-search"],
    "forward": ["start", "finish"],
    "matcher": ["create", "fork", "advance", "rollback", "look", "finish-look", "release"],
    "scheduling": ["set-bid", "set-away", "look", "finish-look"],
    "session": ["send", "receive", "finish-receive", "drain", "finish-drain"],
    "runtime": [
        *["process-id", "program", "version", "store-code", "at", "secret"],
        *["launch", "next-of-child", "send-to-child", "terminate-child"],
    ],
    "log": ["emit", "write"],
}
TAGGED = {
    "model.describe",
    "context.open",
    "generate.next",
    "generate.stop",
    "generate.finish-search",
    "forward.finish",
    "matcher.finish-look",
    "scheduling.finish-look",
    "runtime.next-of-child",
}
"""Functions whose value and error are both records, which wasmtime-py wants told apart."""


def to_wire(value: Any) -> Any:
    """A record of the fake as wasmtime-py wants it."""
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", "-")
    if isinstance(value, SimpleNamespace) or dataclasses.is_dataclass(value):
        record = Record()
        record.__dict__.update({key.replace("_", "-"): to_wire(item) for key, item in vars(value).items()})
        return record
    return [to_wire(item) for item in value] if isinstance(value, list) else value


def from_wire(value: Any) -> Any:
    """A record of wasmtime-py as the fake wants it."""
    if isinstance(value, Record):
        return SimpleNamespace(**{key.replace("-", "_"): from_wire(item) for key, item in vars(value).items()})
    return value


def error_record(error: errors.PieError) -> Record:
    record = Record()
    record.__dict__.update(code=error.code.replace("_", "-"), message=error.message, retry=error.retry)
    return record


@dataclasses.dataclass
class Outcome:
    """What one instance did."""

    is_ok: bool
    value: Any
    """The result, or the error, from JSON."""
    host: FakeHost
    run_ms: float

    @property
    def printed(self) -> str:
        return "".join(text for _, text in self.host.printed)


class Sandbox:
    """The runtime component with the fake host linked in."""

    def __init__(self) -> None:
        self.engine = new_engine()
        self.component: Component = load_runtime(self.engine, CACHE, lambda text, fraction: None)
        self.host = FakeHost()
        self.linker = Linker(self.engine)
        self.linker.add_wasip2()
        with self.linker.root() as root:
            for interface, functions in INTERFACES.items():
                with root.add_instance(f"pie:core/{interface}@0.1.0") as instance:
                    for function in functions:
                        instance.add_func(function, self._imported(interface, function))

    def _imported(self, interface: str, function: str) -> Any:
        name, is_tagged = function.replace("-", "_"), f"{interface}.{function}" in TAGGED

        def call(store: Any, *args: Any) -> Any:
            try:
                arguments = [self._argument(interface, from_wire(arg)) for arg in args]
                value = to_wire(getattr(getattr(self.host, interface), name)(*arguments))
                return Variant("ok", value) if is_tagged else value
            except errors.PieError as error:
                return Variant("err", error_record(error)) if is_tagged else error_record(error)

        return call

    def _argument(self, interface: str, value: Any) -> Any:
        if interface == "matcher" and isinstance(value, SimpleNamespace):
            value.kind = self.host.generate.GrammarKind[value.kind.upper().replace("-", "_")]
        enums = {"log": {**self.host.log.Level.__members__, **self.host.log.Output.__members__}}
        return enums.get(interface, {}).get(value.upper(), value) if isinstance(value, str) else value

    def instance(self, folder: Path | None) -> tuple[Store, dict[str, Any]]:
        store, wasi = Store(self.engine), WasiConfig()
        if folder is not None:
            wasi.preopen_dir(str(folder), "/", fs_mutable=False)
        store.set_wasi(wasi)
        store.set_epoch_deadline(10**9)
        instance = self.linker.instantiate(store, self.component)
        program = instance.get_export_index(store, "pie:core/program@0.1.0")
        names = ("describe", "run")
        return store, {n: instance.get_func(store, instance.get_export_index(store, n, program)) for n in names}

    def call(
        self, function: str, program: dict[str, str] | str, arguments: Any = None, *, folder: Path | None = None,
        host: FakeHost | None = None, code: dict[str, str] | None = None, entry: str = "main", is_warm: bool = False,
    ) -> Outcome:  # fmt: skip
        """Call an export of a fresh instance for a program: one `main.py`, or files by path."""
        files = {"main.py": textwrap.dedent(program)} if isinstance(program, str) else program
        bundle = {"name": "test", "version": "1.0.0", "entry": entry, "files": files, "code": code or {}}
        store, exports = self.instance(folder)
        if is_warm:
            assert exports["describe"](store, "").payload == ""
        self.host = host or FakeHost()
        texts = [json.dumps(bundle)] + ([json.dumps(arguments or {})] if function == "run" else [])
        started = time.perf_counter()
        result = exports[function](store, *texts)
        run_ms = (time.perf_counter() - started) * 1e3
        return Outcome(result.tag == "ok", json.loads(result.payload), self.host, run_ms)
