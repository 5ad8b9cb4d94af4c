"""Is there a GPU?"""

from __future__ import annotations

import shutil
import subprocess

from pie_cli.checks.finding import Finding

TIMEOUT_S = 10


def check() -> list[Finding]:
    devices = _devices()
    if devices is None:
        return [Finding("gpu", "note", "no NVIDIA driver: models run on the CPU")]
    if not devices:
        return [Finding("gpu", "warning", "nvidia-smi is there and shows no device", "see what `nvidia-smi` says")]
    return [Finding("gpu", "ok", device) for device in devices]


def _devices() -> list[str] | None:
    """One line each; None: there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")]
