"""Rust programs: `cargo build` for wasm32-wasip2. cargo knows by itself what has changed, and says it itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pie_engine.builder.build import Made
from pie_engine.builder.componentize import Progress, wit_digest
from pie_engine.builder.record import Record
from pie_engine.errors import InvalidProgram, Unsupported
from pie_engine.protocol.program import Bundle
from pie_engine.protocol.version import pie_version

CRATE_FILE = "Cargo.toml"
TARGET = "wasm32-wasip2"
INSTALL_CARGO = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
CHOOSE_TOOLCHAIN = "rustup default stable"
INSTALL_TARGET = f"rustup target add {TARGET}"


def is_crate(root: Path) -> bool:
    """Whether a folder holds a Rust program."""
    return (root / CRATE_FILE).is_file()


class RustBuilder:
    """Runs cargo in the crate's own folder, so that its cache stays there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def key(self) -> None:
        """cargo's own fingerprints are the better ones: a crate depends on files outside its folder, too."""

    def make(self, bundle: Bundle, folder: Path, progress: Progress) -> Made:
        cargo = require_tools(self._root)
        wasm = self._artifact(cargo)
        record = Record(
            manifest=bundle.manifest,
            language="rust",
            digest=bundle.digest,
            pie=pie_version(),
            wit=wit_digest(),
            tools={"cargo": version_of(cargo)},
        )
        return Made(wasm.read_bytes(), record, {})

    def _artifact(self, cargo: str) -> Path:
        """What cargo builds. What it says to people goes to our stderr as it comes; JSON to us."""
        command = [cargo, "build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]
        done = subprocess.run(command, cwd=self._root, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise InvalidProgram(f"cargo cannot build {self._root} (exit status {done.returncode})")
        found = [Path(name) for name in _filenames(done.stdout) if name.endswith(".wasm")]
        if not found:
            raise InvalidProgram(
                f"{self._root} builds no .wasm file",
                hint=f'write `[lib]`, then `crate-type = ["cdylib"]` into its {CRATE_FILE}',
            )
        return found[-1]


def _filenames(said: str) -> list[str]:
    """Of what cargo has built, the crate itself last."""
    names: list[str] = []
    for line in said.splitlines():
        if line.startswith("{"):
            message: dict[str, Any] = json.loads(line)
            if message.get("reason") == "compiler-artifact":
                names += message.get("filenames", [])
    return names


def require_tools(root: Path | None = None) -> str:
    """cargo, where it can build components. Raises `Unsupported` with the command that installs what is missing.

    root: of a crate, which may ask for a tool chain of its own (`rust-toolchain.toml`).
    """
    cargo = _required("cargo", INSTALL_CARGO)
    _require_target(root)
    return cargo


def _require_target(root: Path | None) -> None:
    """The standard library for `TARGET` lies where the compiler keeps those of all targets."""
    rustc = _required("rustc", INSTALL_CARGO)
    # Whoever debugs programs in Rust may have set it; here it would show the inside of rustup.
    env = {**os.environ, "RUST_BACKTRACE": "0"}
    done = subprocess.run([rustc, "--print", "sysroot"], cwd=root, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        why = next(iter(done.stderr.strip().splitlines()), "").removeprefix("error: ")
        hint = CHOOSE_TOOLCHAIN if CHOOSE_TOOLCHAIN in done.stderr else "rustup update"
        raise Unsupported(f"rustc does not work: {why[:500]}", hint=hint)
    if not (Path(done.stdout.strip()) / "lib" / "rustlib" / TARGET).is_dir():
        raise Unsupported(f"Rust cannot build for {TARGET}: its target is not installed", hint=INSTALL_TARGET)


def _required(tool: str, command: str) -> str:
    found = shutil.which(tool)
    if found is None:
        raise Unsupported(f"{tool} is not installed, and a Rust program needs it", hint=command)
    return found


def version_of(cargo: str) -> str:
    words = subprocess.run([cargo, "--version"], capture_output=True, text=True).stdout.split()
    return words[1] if len(words) > 1 else "unknown"
