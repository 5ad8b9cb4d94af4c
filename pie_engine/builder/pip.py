"""pip, asked for packages that run in the sandbox: pure-Python wheels for the guest's version of Python.

Where packages come from is pip's own business: its configuration and its environment variables hold.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pie_engine.builder.lockfile import Package
from pie_engine.errors import InvalidProgram, Unsupported
from pie_engine.protocol.program import GUEST_PYTHON

_VERSION = ".".join(map(str, GUEST_PYTHON))
_SANDBOX = {
    "python_version": _VERSION,
    "python_full_version": f"{_VERSION}.0",
    "implementation_name": "cpython",
    "implementation_version": f"{_VERSION}.0",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "wasi",
    "platform_system": "WASI",
    "platform_machine": "wasm32",
    "platform_release": "",
    "platform_version": "",
}
"""What requirements may depend on, as it is in the guest; pip would answer for the Python that runs it."""
_PIP = f"""
import sys
try:
    from pip._vendor.packaging import markers
    markers.default_environment = lambda: dict({_SANDBOX!r})
except ImportError:
    pass
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
_FOR_GUEST = ["--only-binary", ":all:", "--implementation", "py", "--abi", "none", "--platform", "any"]
_FOR_GUEST += ["--python-version", _VERSION]
_QUIET = ["--no-input", "--disable-pip-version-check", "--quiet"]
_OFFLINE = re.compile(r"connection broken|Failed to establish|NameResolutionError|timed out", re.IGNORECASE)
_NOT_FOUND = re.compile(r"No matching distribution found for (?P<requirement>(?P<name>[A-Za-z0-9._-]+)[^\s;]*)")
"""Of the requirement, without what it depends on."""


def resolve(requires: Sequence[str], folder: Path) -> list[Path]:
    """Choose packages and fetch their wheels into `folder`. Raises `InvalidProgram` naming what cannot be had."""
    return _download(list(requires), folder)


def fetch(packages: Sequence[Package], folder: Path) -> list[Path]:
    """These very wheels, by version and hash. Raises `InvalidProgram`."""
    lines = [f"{each.name}=={each.version} {' '.join(f'--hash={h}' for h in each.hashes)}\n" for each in packages]
    wanted = folder.parent / "requirements.txt"
    wanted.write_text("".join(lines), "utf-8")
    return _download(["--no-deps", "--require-hashes", "-r", str(wanted)], folder)


def _download(options: list[str], folder: Path) -> list[Path]:
    if importlib.util.find_spec("pip") is None:
        raise Unsupported(f"{sys.executable} has no pip", hint=f"{sys.executable} -m ensurepip")
    # Not `install`: that checks `Requires-Python` against the Python that runs pip.
    command = [sys.executable, "-c", _PIP, "download", "--dest", str(folder), *_QUIET, *_FOR_GUEST, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise _refusal(done.stderr)
    return sorted(folder.glob("*.whl"))


def _refusal(said: str) -> InvalidProgram:
    """pip's last words as an error."""
    missing = _NOT_FOUND.search(said)
    if missing and _OFFLINE.search(said):
        hint = "check the network; PIP_FIND_LINKS names a folder of wheels to take instead"
        return InvalidProgram(f"pip cannot reach the index that it fetches `{missing['name']}` from", hint=hint)
    if missing:
        return _unavailable(missing["name"], missing["requirement"])
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    if "HASH" in said.upper() and "MATCH" in said.upper():
        hint = "if the new packages are meant, `pie build --upgrade` writes pie.lock anew"
        return InvalidProgram("a package is not the one that pie.lock names: its hash is another", hint=hint)
    hint = "check `dependencies` in pie.toml, and pip's own configuration"
    why = " ".join(lines) or said.strip()
    return InvalidProgram(f"pip cannot install the packages: {why[:1000]}", hint=hint)


def _unavailable(name: str, requirement: str) -> InvalidProgram:
    """Either it does not exist, or not as a pure-Python wheel. Whether this machine could have it tells which.

    requirement: the name with the versions that were asked for.
    """
    from inferlet._runtime.failures import NATIVE_PACKAGES  # type: ignore[import-untyped]

    known = NATIVE_PACKAGES.get(name) or NATIVE_PACKAGES.get(name.replace("-", "_"))
    if known or _exists_here(requirement):
        message = f"`{name}` needs native code, which cannot run in the sandbox"
        return InvalidProgram(message, hint=known or "choose a package that is pure Python")
    hint = "check its name and version in `dependencies` of pie.toml; only wheels are taken, never source archives"
    return InvalidProgram(f"pip finds no pure-Python wheel of `{requirement}` for Python {_VERSION}", hint=hint)


def _exists_here(requirement: str) -> bool:
    """Whether pip would install a wheel of that for the Python that runs us."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", *_QUIET]
    done = subprocess.run([*command, "--only-binary", ":all:", requirement], capture_output=True, text=True)
    return done.returncode == 0
