"""Which members of the daemon died lately, why, and what was done about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pie_cli.checks.finding import Finding, Severity, title_of
from pie_engine.config import EngineConfig, Paths
from pie_engine.errors import ErrorInfo, Internal, InvalidInput, ModelError, NotFound, Unsupported

MAX_SHOWN = 5
RECENT_S = 24 * 3600.0
MANY = 3
"""Deaths of one member that are no accident."""
CRASHES = frozenset({"killed by SIGSEGV", "killed by SIGBUS", "killed by SIGILL"})
"""What damaged machine code comes to, or that of another processor."""
USAGE = (InvalidInput, NotFound, Unsupported, ModelError)
"""What was wrong then was said then; what is still wrong in the configuration is found by the other checks."""


class Incident(msgspec.Struct, frozen=True):
    """A line of incidents.jsonl; what else stands there is not shown."""

    time: float
    role: str
    name: str
    os_pid: int
    reason: str
    action: str = ""
    stderr: list[str] = []
    code: str = ""

    @property
    def is_usage(self) -> bool:
        """Whether it refused what it was asked for, as it should: a missing model, a wrong setting."""
        return isinstance(ErrorInfo(self.code, "").raised(), USAGE)


def check(config: EngineConfig) -> list[Finding]:
    since = time.time() - RECENT_S
    incidents = [i for i in read_incidents(config) if i.time > since and not i.is_usage]
    if not incidents:
        return [Finding("incidents", "ok", "nothing has died within the last day")]
    return [_finding(incident, incidents, config.paths) for incident in incidents[-MAX_SHOWN:]]


def read_incidents(config: EngineConfig) -> list[Incident]:
    """Oldest first. A line that a full disk cut off is left out."""
    try:
        lines = config.paths.incidents.read_bytes().splitlines()
    except OSError:
        return []
    return [incident for line in lines if (incident := _decoded(line))]


def _decoded(line: bytes) -> Incident | None:
    try:
        return msgspec.json.decode(line, type=Incident)
    except msgspec.MsgspecError:
        return None


def _finding(incident: Incident, all_of_them: Sequence[Incident], paths: Paths) -> Finding:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(incident.time))
    name = title_of(incident.role, incident.name)
    verb = "was" if incident.reason.startswith("killed") else "ended with"
    last = next((line.strip() for line in reversed(incident.stderr) if line.strip()), "")
    parts = [f"{name} {verb} {incident.reason} at {when}", incident.action, f"last words: {last}" if last else ""]
    message = "; ".join(part for part in parts if part)
    log = paths.logs / f"{incident.name}.log"
    folder = _suspect(incident, paths)
    if folder is None:
        return Finding("incidents", "warning", message, f"see {log}")
    alike = sum(each.name == incident.name and _suspect(each, paths) == folder for each in all_of_them)
    severity: Severity = "problem" if alike >= MANY or incident.action.startswith("cannot start") else "warning"
    fix = f"`pie doctor --fix` removes {folder}, which may be damaged and is made again; else see {log}"
    return Finding("incidents", severity, message, fix, ("remove_cache", str(folder)))


def _suspect(incident: Incident, paths: Paths) -> Path | None:
    """The folder of compiled code in which it died, if that has not been made anew since."""
    is_warming = incident.role == "host" and incident.code == Internal.code
    is_crashing = incident.role == "core" and incident.reason in CRASHES
    folder = paths.cache / ("runtime" if is_warming else "kernels")
    try:
        is_older = folder.stat().st_mtime < incident.time
    except OSError:
        return None
    return folder if is_older and (is_warming or is_crashing) else None
