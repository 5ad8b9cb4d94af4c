"""The user's config.toml as `pie config` reads and changes it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from pie_cli.checks import addresses
from pie_engine import config as engine_config
from pie_engine.config import EngineConfig, Section, config_file, decode_config, load_config, nearest_hint
from pie_engine.config_fields import TABLES, Setting, section_doc, settings_of, top_settings
from pie_engine.errors import InvalidConfig, NotFound

if TYPE_CHECKING:
    import tomlkit

DEFAULT = "default"
USERS = "scheduling.users"
SECTIONS: dict[str, type[Section]] = {
    "models": engine_config.ModelSection,
    "host": engine_config.HostSection,
    "gateway": engine_config.GatewaySection,
    "scheduling": engine_config.SchedulingSection,
    "telemetry": engine_config.TelemetrySection,
}
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Effective(msgspec.Struct, frozen=True):
    """A setting that holds."""

    key: str
    value: Any
    source: str
    """`default`, the file, or the name of the environment variable."""


# Reading.


def effective(environ: Mapping[str, str] | None = None) -> list[Effective]:
    """Every setting, where each comes from; models under their names. Raises `InvalidConfig`."""
    environ = os.environ if environ is None else environ
    config = load_config(environ=environ)
    in_file = _read(config_file(environ)).unwrap()
    rows = [_top(setting, config, in_file, environ) for setting in top_settings()]
    given = in_file.get("models", [{}])
    for model, table in zip(config.models, given, strict=True):
        rows += _rows(f"models.{model.label}", model, table, environ)
    for name in ("host", "gateway", "scheduling", "telemetry"):
        rows += _rows(name, getattr(config, name), in_file.get(name, {}), environ)
    users = in_file.get("scheduling", {}).get("users", {})
    for user, quota in config.scheduling.users.items():
        rows += _rows(f"{USERS}.{user}", quota, users.get(user, {}), environ)
    return rows


def find(rows: list[Effective], key: str) -> Effective:
    """The row of `key`; `models.path` is that of the only model. Raises `InvalidConfig` naming the nearest key."""
    by_key = {row.key: row for row in rows}
    labels = dict.fromkeys(row.key.rsplit(".", 1)[0] for row in rows if row.key.startswith("models."))
    if len(labels) == 1:
        (label,) = labels
        by_key |= {f"models.{k.removeprefix(label + '.')}": row for k, row in by_key.items() if k.startswith(label)}
    if key not in by_key:
        raise InvalidConfig(f"there is no setting `{key}`", hint=nearest_hint(key, tuple(by_key)))
    return by_key[key]


def overriding(variable: str) -> str:
    """`variable` where it is set in this environment, else nothing."""
    return variable if variable and os.environ.get(variable) else ""


def toml_value(value: Any) -> str:
    """As it would stand in the file."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _top(setting: Setting, config: EngineConfig, in_file: Mapping[str, Any], environ: Mapping[str, str]) -> Effective:
    variable = engine_config.ENVIRONMENT.get(setting.key, "")
    file = str(config_file(environ)) if setting.key in in_file else DEFAULT
    source = variable if variable and environ.get(variable) else file
    return Effective(setting.key, getattr(config, setting.key), source)


def _rows(name: str, section: Section, table: Mapping[str, Any], environ: Mapping[str, str]) -> list[Effective]:
    file = str(config_file(environ))
    return [
        Effective(f"{name}.{key}", getattr(section, key), file if key in table else DEFAULT)
        for key in section.__struct_fields__
        if f"{name}.{key}" != USERS
    ]


# Writing.


def template() -> str:
    """A file in which every setting stands behind a `#`, with its default and what it means."""
    parts = ["# Settings of Pie's daemon, read when it starts. What stands behind `#` is the default.\n"]
    parts += [_commented(setting) for setting in top_settings()]
    for name in TABLES:
        section = SECTIONS[name]
        header = "[[models]]" if name == "models" else f"[{name}]"
        parts.append(f"\n# {section_doc(section)}\n{header}\n")
        parts += [_commented(setting) for setting in settings_of(section)]
    return "\n".join(parts)


def change(path: Path, key: str, text: str | None) -> None:
    """Set `key` to what `text` says, or take it out (None).

    Raises `InvalidConfig` for an unknown key, a value that is not allowed, a file that is wrong already, and a model
    that is not named where there are several; nothing is written then.
    """
    document = _read(path)
    table, setting, where = _place(document, key)
    if text is None:
        if setting not in table:
            raise NotFound(f"{path} does not set `{key}`", hint="`pie config show --changed` lists what is set")
        del table[setting]
    else:
        table[setting] = _value(where, setting, text)
    addresses.check(decode_config(document.unwrap(), source=str(path)))
    write(path, document.as_string())


def write(path: Path, text: str) -> None:
    """In place of what is there, whole or not at all; through a link to what it points at."""
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(draft).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written: {error.strerror}") from error


def _commented(setting: Setting) -> str:
    import textwrap

    text = f"{setting.doc} ({setting.allowed.replace('`', '')})" if setting.allowed else setting.doc
    return "\n".join(textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ")) + (
        f"\n# {setting.key} = {toml_value(setting.default)}\n"
    )


def _read(path: Path) -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise InvalidConfig(f"{path}: {error}", hint="correct it by hand, or begin anew: `pie config init`") from error


def _place(document: tomlkit.TOMLDocument, key: str) -> tuple[Any, str, type[Section]]:
    """The table that `key` stands in, its name there, and the section that it is of."""
    import tomlkit

    first, _, rest = key.partition(".")
    if first == "models" and rest:
        return _model_place(document, rest)
    if key.startswith(f"{USERS}."):
        return _user_place(document, key.removeprefix(f"{USERS}."))
    if first in SECTIONS and rest:
        _known(rest, SECTIONS[first], f"{first}.")
        return document.setdefault(first, tomlkit.table()), rest, SECTIONS[first]
    if first in TABLES:
        raise InvalidConfig(
            f"`{first}` is a table", hint=f"name one of its settings: `{first}.{_names(SECTIONS[first])[0]}`"
        )
    names = tuple(setting.key for setting in top_settings())
    if key not in names:
        dotted = tuple(f"{table}.{name}" for table in SECTIONS for name in _names(SECTIONS[table]))
        raise InvalidConfig(f"there is no setting `{key}`", hint=nearest_hint(key, (*names, *dotted)))
    return document, key, EngineConfig


def _user_place(document: tomlkit.TOMLDocument, rest: str) -> tuple[Any, str, type[Section]]:
    """`NAME.endowment`; a NAME may have dots itself."""
    import tomlkit

    section = engine_config.UserSection
    user, _, name = rest.rpartition(".")
    if not user:
        raise InvalidConfig(f"`{USERS}.{rest}` is a table", hint=f"name one of its settings: `{USERS}.{rest}.priority`")
    _known(name, section, f"{USERS}.{user}.")
    users = document.setdefault("scheduling", tomlkit.table()).setdefault("users", tomlkit.table(is_super_table=True))
    return users.setdefault(user, tomlkit.table()), name, section


def _model_place(document: tomlkit.TOMLDocument, rest: str) -> tuple[Any, str, type[Section]]:
    """`path`, `NAME.path`, or `NAME.adapters.ADAPTER`; a NAME may have dots itself."""
    import tomlkit

    section = engine_config.ModelSection
    adapter = ""
    if "adapters." in rest:
        rest, _, adapter = rest.rpartition("adapters.")
        rest += "adapters"
    label, _, name = rest.rpartition(".")
    _known(name, section, "models.")
    models = document.setdefault("models", tomlkit.aot())
    table = _model_table(models, label)
    if adapter:
        return table.setdefault("adapters", tomlkit.table()), adapter, section
    return table, name, section


def _model_table(models: Any, label: str) -> Any:
    import tomlkit

    labels = [decode_config({"models": [table.unwrap()]}).models[0].label for table in models]
    if label in labels:
        return models[labels.index(label)]
    if not label and len(models) == 1:
        return models[0]
    if not label and len(models) > 1:
        raise InvalidConfig(f"there are {len(models)} models", hint=f"say which: `models.{labels[0]}.path`")
    table = tomlkit.table()
    if label:
        table["name"] = label
    models.append(table)
    return models[-1]


def _known(name: str, section: type[Section], prefix: str) -> None:
    names = _names(section)
    if name not in names:
        raise InvalidConfig(f"there is no setting `{prefix}{name}`", hint=nearest_hint(name, names))


def _names(section: type[Section]) -> tuple[str, ...]:
    return section.__struct_fields__


def _value(section: type[Section], name: str, text: str) -> Any:
    """`text` as the setting's type has it; what cannot be is left to the check, which says what is allowed."""
    kind = next((each.kind for each in settings_of(section) if each.key == name), inspect.StrType())
    try:
        if isinstance(kind, inspect.BoolType):
            return _WORDS.get(text.lower(), text)
        if isinstance(kind, inspect.IntType):
            return int(text)
        if isinstance(kind, inspect.FloatType):
            return float(text)
    except ValueError:
        return text
    return text
