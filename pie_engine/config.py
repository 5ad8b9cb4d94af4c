"""The one configuration: frozen, documented where each field stands, from TOML, environment and overrides.

Order, weakest first: the defaults here, `config.toml` in the configuration folder (or `PIE_CONFIG`), `PIE_*`
environment variables, what the command line gives. This is the only file that reads the environment.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import platformdirs
import tomli
from msgspec import Meta

from pie_engine.errors import InvalidConfig

MIB = 1024 * 1024
MAX_SOCKET_PATH = 90
"""Unix socket paths end at 104 (macOS) or 108 bytes (Linux); the rest is for the file's name."""
MAX_ENDOWMENT = 1_000_000
"""Most credits of a process. The arithmetic of the market needs a bound."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the configuration. Unknown keys are refused."""


class ModelSection(Section, frozen=True):
    """`[[models]]`: the models that are loaded, one core each."""

    path: Annotated[str, Meta(min_length=1)] = "pie-tiny"
    """`pie-tiny`, a folder in Hugging Face format, a GGUF file, or a name or id that `pie model list` shows."""
    name: str = ""
    """What programs and clients call it. Empty: the last part of `path`."""
    driver: Literal["cpu", "fake", "cuda"] = "cpu"
    """What runs the model. `fake` makes tokens up, for tests. `cuda` is not there yet: the engine refuses it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: the checkpoint's, or float32 where bfloat16 is slow."""
    kernels: Literal["auto", "compiled", "torch"] = "auto"
    """What runs the model on the CPU. `auto`: kernels compiled for this processor, and torch for what they lack."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Fewer bits for the matrices of the layers, when they are loaded: less memory, less exact."""
    num_threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """CPU threads of the driver. 0: measured at load."""
    deterministic: bool = False
    """The same bits whatever the batch, chunk borders, prefix hits, drafts and pages that were moved. Compiled
    kernels give that for nothing; torch takes up to 1.6 times as long, with one thread (see sampling.md)."""
    page_size: Annotated[int, Meta(ge=1, le=1024)] = 16
    """Tokens in a KV page."""
    num_pages: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    """KV pages. 0: as many as `kv_memory_mb` holds."""
    kv_memory_mb: Annotated[int, Meta(ge=1, le=16_777_216)] = 512
    """Memory for KV pages, in MiB."""
    offload_memory_mb: Annotated[int, Meta(ge=0, le=16_777_216)] = 512
    """Host memory for the content of KV pages whose place is needed, in MiB. 0: it is computed again."""
    draft_model: str = ""
    """A smaller model with the same tokenizer, named as in `path`, that guesses ahead for `speculate="model"`."""
    draft_kv_memory_mb: Annotated[int, Meta(ge=1, le=16_777_216)] = 128
    """Memory for the KV pages of the draft model, in MiB."""
    max_context_tokens: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    """Longest context, within the model's own. 0: the model's own. Rotary scaling that depends on the length of the
    context (`longrope`, `dynamic`) is settled by it."""
    prefix_cache: Literal["user", "shared", "off"] = "user"
    """Whose prompts may reuse KV pages that another one has computed: those of the same user, everybody's, nobody's."""
    adapters: dict[str, Annotated[str, Meta(min_length=1)]] = {}
    """LoRA adapters loaded with the model: for each name the folder that PEFT has written."""
    adapter_memory_mb: Annotated[int, Meta(ge=0, le=1_073_741_824)] = 512
    """Most memory for the adapters of the model, in MiB."""
    saved_contexts_mb: Annotated[int, Meta(ge=0, le=1_073_741_824)] = 10_240
    """Disk for the contexts that one user saves with this model, in MiB."""
    max_batch_tokens: Annotated[int, Meta(ge=1, le=1_048_576)] = 512
    """Most tokens in one step; longer prompts are prefilled in chunks."""
    max_batch_sequences: Annotated[int, Meta(ge=1, le=65536)] = 128
    """Most contexts in one step."""
    step_ms: Annotated[float, Meta(ge=0, le=3_600_000)] = 150.0
    """How long a step may take for the sake of prompts while others decode: the wait for their next token. Long
    prompts then run in smaller chunks. 0: prompts take whatever room `max_batch_tokens` leaves."""
    chat_template: str = ""
    """Jinja file with the chat template. Empty: the checkpoint's own."""
    script: str = ""
    """JSON file with the replies of the `fake` driver."""

    @property
    def label(self) -> str:
        return self.name or Path(self.path).name


class HostSection(Section, frozen=True):
    """`[host]`: the processes that run inferlets, and the limits of each inferlet."""

    num_hosts: Annotated[int, Meta(ge=1, le=256)] = 1
    """Host processes; each runs its inferlets on one core."""
    warm_instances: Annotated[int, Meta(ge=0, le=1024)] = 4
    """Instances kept ready ahead of need, in each host."""
    max_processes: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    """Inferlets alive at once in one host; more wait in the gateway's queue."""
    memory_mb: Annotated[int, Meta(ge=64, le=4096)] = 256
    """WebAssembly memory of one inferlet, in MiB; the Python runtime takes 34 of it."""
    cpu_s: Annotated[float, Meta(ge=0.01, le=86_400)] = 10.0
    """CPU time of one inferlet between two host calls."""
    wall_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0
    """Time of one inferlet from launch to end. 0: no limit."""
    output_mb: Annotated[float, Meta(ge=0.01, le=65_536)] = 64.0
    """Everything that one inferlet sends and prints, in MiB."""
    max_children: Annotated[int, Meta(ge=0, le=100_000)] = 64
    """Children of one inferlet alive at once."""
    max_depth: Annotated[int, Meta(ge=0, le=64)] = 4
    """Generations of children: 1 lets inferlets launch others, which then may launch none."""
    trace_mb: Annotated[float, Meta(ge=0.01, le=65_536)] = 64.0
    """Compressed size of a recording of one inferlet, in MiB; past it the recording ends and the inferlet goes on."""
    cancel_grace_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0
    """How long a terminated inferlet may clean up before it is killed."""
    kill_grace_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """How long a standalone component may wait where nothing can interrupt it. Then the host for the components of its
    user is started anew, and all of them end."""
    gateway_grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """How long inferlets go on without a gateway."""


class GatewaySection(Section, frozen=True):
    """`[gateway]`: the HTTP API."""

    listen: str = ""
    """`HOST:PORT` to listen on TCP as well (loopback only until there are tokens). Empty: the Unix socket only."""
    max_body_mb: Annotated[float, Meta(ge=1, le=512)] = 64.0
    """Largest request, in MiB; a program with its files must fit."""
    max_processes: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    """Processes alive or queued; one more is answered 429."""
    disconnect_grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 2.0
    """How long a process launched with `on_disconnect=terminate` survives its last client."""
    retention_days: Annotated[float, Meta(ge=0, le=36_500)] = 7.0
    """How long ended processes and their events are kept."""


class UserSection(Section, frozen=True):
    """`[scheduling.users.NAME]`: the share of one user, where it differs from everybody's."""

    endowment: Annotated[float, Meta(ge=0, le=MAX_ENDOWMENT)] = 0.0
    """Credits of a process whose launch names none. 0: as under `[scheduling]`."""
    max_endowment: Annotated[float, Meta(ge=0, le=MAX_ENDOWMENT)] = 0.0
    """Most credits that a launch may name. 0: as under `[scheduling]`."""
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    """For the policy `priority`: a higher one goes first."""
    max_processes: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Processes of the user alive or queued at once; one more is answered 429. 0: no limit of its own."""
    credits_per_hour: Annotated[float, Meta(ge=0, le=1_000_000_000)] = 0.0
    """Credits that processes of the user get within an hour; a launch beyond that is answered 429. 0: no limit."""


class Quota(NamedTuple):
    """What one user may have."""

    endowment: float
    """Credits of a process whose launch names none."""
    max_endowment: float
    priority: int
    max_processes: int
    """0: no limit; so for the next."""
    credits_per_hour: float


class SchedulingSection(Section, frozen=True):
    """`[scheduling]`: who gets the batch and who keeps the pages when they do not suffice for all."""

    policy: Literal["market", "fcfs", "priority"] = "market"
    """`market`: the highest bid first. `fcfs`: who came first. `priority`: the user's priority first."""
    endowment: Annotated[float, Meta(ge=0, le=MAX_ENDOWMENT)] = 1000.0
    """Credits of a process whose launch names none, `max_endowment` at most. Making a KV page costs one."""
    max_endowment: Annotated[float, Meta(ge=0, le=MAX_ENDOWMENT)] = 100_000.0
    """Most credits that a launch may name."""
    admission_quota_pages: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    """Pages that a process without credits may make on debt."""
    max_wait_steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    """Who has waited for so many steps goes before any bid."""
    users: dict[str, UserSection] = {}
    """Quotas of users: a table `[scheduling.users.NAME]` for each. Who opens the socket is `local`."""

    def quota_of(self, user: str) -> Quota:
        own = self.users.get(user, UserSection())
        most = own.max_endowment or self.max_endowment
        endowment = min(own.endowment or self.endowment, most)
        return Quota(endowment, most, own.priority, own.max_processes, own.credits_per_hour)


class TelemetrySection(Section, frozen=True):
    """`[telemetry]`: where traces go."""

    otlp_endpoint: str = ""
    """An OpenTelemetry collector that takes OTLP over HTTP, like `http://127.0.0.1:4318`. Empty: no traces."""


class EngineConfig(Section, frozen=True):
    """Everything. `home` is where state lives: sockets, database, logs, caches."""

    models: Annotated[tuple[ModelSection, ...], Meta(min_length=1)] = (ModelSection(),)
    """The loaded models, one core process each; the first is the default."""
    host: HostSection = HostSection()
    """The processes that run inferlets."""
    gateway: GatewaySection = GatewaySection()
    """The HTTP API."""
    scheduling: SchedulingSection = SchedulingSection()
    """Who gets the batch and the pages."""
    telemetry: TelemetrySection = TelemetrySection()
    """Where traces go."""
    home: str = ""
    """Data folder of this daemon. Empty: the user's data folder. `PIE_HOME` sets it."""
    cache: str = ""
    """Where built runtimes are kept. Empty: the user's cache folder. `PIE_CACHE` sets it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of the daemon and its children. `PIE_LOG_LEVEL` sets it."""

    @property
    def paths(self) -> Paths:
        home = Path(self.home).expanduser().absolute() if self.home else Path(platformdirs.user_data_dir("pie"))
        cache = Path(self.cache).expanduser().absolute() if self.cache else Path(platformdirs.user_cache_dir("pie"))
        return Paths(home, cache)


class Paths(msgspec.Struct, frozen=True):
    """Where things are. Nothing is created by asking."""

    home: Path
    cache: Path

    @property
    def run(self) -> Path:
        """Sockets and locks. In the home unless its path is too long for a Unix socket."""
        inside = self.home / "run"
        if len(str(inside)) <= MAX_SOCKET_PATH - 30:
            return inside
        digest = hashlib.blake2b(str(self.home).encode(), digest_size=6).hexdigest()
        return Path(tempfile.gettempdir()) / f"pie-{os.getuid()}-{digest}"

    @property
    def saved_contexts(self) -> Path:
        return self.home / "contexts"

    @property
    def adapters(self) -> Path:
        """Adapters that were added to running models, each a link to its folder."""
        return self.home / "adapters"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    def kv_regions(self, os_pid: int) -> Path:
        """Where in the memory of a core its KV is, for `pie doctor` alone: addresses are nobody else's business."""
        return self.run / f"kv-regions-{os_pid}.json"

    @property
    def daemon_lock(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.run / "daemon.lock"

    @property
    def start_lock(self) -> Path:
        """Held by who is starting a daemon."""
        return self.run / "start.lock"

    @property
    def database(self) -> Path:
        return self.home / "pie.sqlite"

    @property
    def names(self) -> Path:
        """Names of models, each a link to a folder or a file; `pie model pull` makes them."""
        return self.home / "models"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def incidents(self) -> Path:
        """Deaths and restarts, one JSON object a line; what `pie doctor` reads."""
        return self.logs / "incidents.jsonl"


def load_config(overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> EngineConfig:
    """The configuration of this user.

    Raises `InvalidConfig` naming the file or variable, the key, and what is allowed or the nearest known key.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for layer in [_file_layer(environ), *_layers_above(overrides, environ)]:
        # Each by itself, so that what is wrong is looked for where it stands.
        decode_config(layer.settings, source=layer.source, text=layer.text)
        merged = _merged(merged, layer.settings)
    return decode_config(merged)


def load_paths(overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Paths:
    """Where this user's daemon is. A running one can be reached also while other settings are wrong.

    Raises `InvalidConfig` when the file, which could say where, cannot be read, and nothing above it does.
    """
    environ = os.environ if environ is None else environ
    layers = _layers_above(overrides, environ)
    try:
        layers.insert(0, _file_layer(environ))
    except InvalidConfig:
        if not any("home" in layer.settings for layer in layers):
            raise
    given = [layer.settings for layer in layers]
    return decode_config({key: each[key] for each in given for key in ("home", "cache") if key in each}).paths


class _Layer(NamedTuple):
    source: str
    settings: Mapping[str, Any]
    text: str = ""
    """Of the file, which has the lines."""


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where this user's configuration is, or would be."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("PIE_CONFIG") or Path(platformdirs.user_config_dir("pie")) / "config.toml")


def _file_layer(environ: Mapping[str, str]) -> _Layer:
    path = config_file(environ)
    if path.exists():
        return _read_toml(path)
    if "PIE_CONFIG" in environ:
        raise InvalidConfig(
            f"PIE_CONFIG names {path}, which does not exist", hint="`pie config init` writes it; or unset PIE_CONFIG"
        )
    return _Layer(str(path), {})


ENVIRONMENT = {"home": "PIE_HOME", "cache": "PIE_CACHE", "log_level": "PIE_LOG_LEVEL"}
"""Settings of the top level that a variable can give, and its name."""


def _layers_above(overrides: Mapping[str, Any] | None, environ: Mapping[str, str]) -> list[_Layer]:
    layers = [_Layer(name, {key: environ[name]}) for key, name in ENVIRONMENT.items() if environ.get(name)]
    return [*layers, _Layer("the command line", overrides or {})]


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where built things are kept, for processes of the engine: a core puts the configured folder into `PIE_CACHE`."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("PIE_CACHE") or platformdirs.user_cache_dir("pie"))


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """Where Hugging Face keeps downloaded models on this machine (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`)."""
    environ = os.environ if environ is None else environ
    if cache := environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def decode_config(data: Mapping[str, Any], *, source: str = "configuration", text: str = "") -> EngineConfig:
    """`data` as a checked configuration. `text`: of the file that it is, whose lines errors then name."""
    place = _Place(source, text)
    _refuse_unknown(data, EngineConfig, place, "")
    try:
        return msgspec.convert(data, EngineConfig)
    except msgspec.ValidationError as error:
        # Loads slowly, and only what is wrong needs it.
        from pie_engine.config_check import explained

        raise explained(error, data, EngineConfig, place.of) from error


class _Place(NamedTuple):
    """Where settings stand, for errors."""

    source: str
    text: str

    def of(self, key: str) -> str:
        """Of one of them."""
        from pie_engine.config_lines import line_of

        line = line_of(self.text, key)
        return f"{self.source}, line {line}" if line else self.source


def _read_toml(path: Path) -> _Layer:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}", hint=_OTHER_FILE) from error
    try:
        text = data.decode()
        return _Layer(str(path), tomli.loads(text), text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidConfig(f"{path}, line {line}: not UTF-8", hint="save the file in UTF-8") from error
    except tomli.TOMLDecodeError as error:
        raise InvalidConfig(f"{path}: {error}") from error


_OTHER_FILE = "`PIE_CONFIG` can name another file"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


_TABLES: dict[type[Section], dict[str, type[Section]]] = {
    EngineConfig: {
        "host": HostSection,
        "gateway": GatewaySection,
        "scheduling": SchedulingSection,
        "telemetry": TelemetrySection,
        "models": ModelSection,
    }
}
_NAMED: dict[type[Section], dict[str, type[Section]]] = {SchedulingSection: {"users": UserSection}}
"""Tables of tables, by names that are not ours."""


def _refuse_unknown(data: Mapping[str, Any], cls: type[Section], place: _Place, where: str) -> None:
    known = cls.__struct_fields__
    for key, value in data.items():
        if key not in known:
            hint = nearest_hint(key, known)
            raise InvalidConfig(f"{place.of(where + key)}: unknown key `{where}{key}`", hint=hint)
        if (table := _TABLES.get(cls, {}).get(key)) is not None:
            for entry in value if isinstance(value, list | tuple) else [value]:
                if isinstance(entry, Mapping):
                    _refuse_unknown(entry, table, place, f"{where}{key}.")
        elif (table := _NAMED.get(cls, {}).get(key)) is not None and isinstance(value, Mapping):
            for name, entry in value.items():
                if isinstance(entry, Mapping):
                    _refuse_unknown(entry, table, place, f"{where}{key}.{name}.")


def nearest_hint(key: str, known: tuple[str, ...]) -> str:
    """`did you mean …?`, or the list of what is known."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
