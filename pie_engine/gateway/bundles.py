"""What a bundle must be before anything is done with it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import COMPONENT_FILE, NAME, SECRET, VERSION, Bundle, Limits

_NATIVE = re.compile(r"\.(so|pyd|dylib|dll)(\.[0-9.]+)?$")


def check_bundle(bundle: Bundle) -> None:
    """Raises `InvalidProgram` naming what is wrong."""
    manifest = bundle.manifest
    if not NAME.fullmatch(manifest.name):
        raise InvalidProgram(f"`{manifest.name}` cannot be a program's name", hint="letters, digits, `.`, `_`, `-`")
    if not VERSION.fullmatch(manifest.version):
        raise InvalidProgram(f"`{manifest.version}` cannot be a version", hint="like `0.1.0`")
    for name in manifest.secrets:
        if not SECRET.fullmatch(name):
            raise InvalidProgram(f"`{name}` cannot be the name of a secret", hint="like `API_KEY`")
    _check_limits(manifest.limits)
    for path in (*bundle.files, *bundle.blobs):
        _check_path(path)
    if manifest.runtime == "component":
        _check_component(bundle)
    else:
        _check_entry(bundle)


def _check_limits(limits: Limits) -> None:
    for key in limits.__struct_fields__:
        value = getattr(limits, key)
        if value is not None and value <= 0:
            raise InvalidProgram(
                f"`limits.{key}` is {value:g}", hint="it must be more than 0; without it the engine's own limit holds"
            )


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidProgram(f"`{path}` is not a path inside a program", hint="relative, with `/`, without `..`")
    if _NATIVE.search(PurePosixPath(path).name):
        raise InvalidProgram(
            f"`{path}` is native code, which cannot run in the sandbox", hint="use a package that is pure Python"
        )


def _check_component(bundle: Bundle) -> None:
    if COMPONENT_FILE not in bundle.blobs:
        raise InvalidProgram(f"`{bundle.manifest.name}` is a component without `{COMPONENT_FILE}`")


def _check_entry(bundle: Bundle) -> None:
    module = bundle.manifest.entry.replace(".", "/")
    if f"{module}.py" not in bundle.files and f"{module}/__init__.py" not in bundle.files:
        raise InvalidProgram(
            f"`{bundle.manifest.name}` has no module `{bundle.manifest.entry}`",
            hint=f"write `{module}.py`, or name another `entry` in pie.toml",
        )
