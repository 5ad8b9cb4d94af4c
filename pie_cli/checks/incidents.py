"""Which members of the daemon died lately, why, and what was done about it."""

from __future__ import annotations

import time

import msgspec

from pie_cli.checks.finding import Finding, title_of
from pie_engine.config import EngineConfig
from pie_engine.errors import ErrorInfo, InvalidInput, ModelError, NotFound, Unsupported

MAX_SHOWN = 5
RECENT_S = 24 * 3600.0
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
    return [_finding(incident) for incident in incidents[-MAX_SHOWN:]]


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


def _finding(incident: Incident) -> Finding:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(incident.time))
    name = title_of(incident.role, incident.name)
    verb = "was" if incident.reason.startswith("killed") else "ended with"
    last = next((line.strip() for line in reversed(incident.stderr) if line.strip()), "")
    parts = [f"{name} {verb} {incident.reason} at {when}", incident.action, f"last words: {last}" if last else ""]
    return Finding("incidents", "warning", "; ".join(part for part in parts if part))
