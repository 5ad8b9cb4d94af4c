"""Does the daemon answer, speak our version and have all its members?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pie_cli.checks import memory, running
from pie_cli.checks.finding import Finding, title_of
from pie_cli.daemon import failure_of, find_daemon, progress_of, running_daemon
from pie_engine.config import EngineConfig
from pie_engine.errors import PieError
from pie_engine.protocol.http import Health, MemberView
from pie_engine.protocol.version import PROTOCOL_VERSION

if TYPE_CHECKING:
    from pie_client import PieClient


async def check(client: PieClient, config: EngineConfig) -> list[Finding]:
    try:
        health = await find_daemon(client)
    except PieError as error:
        fix = error.hint or "`pie stop`, then run again"
        return [Finding("daemon", "problem", f"the daemon answers with an error: {error.message}", fix)]
    if health is None:
        return [_silent(config)]
    members = health.members
    found = [
        *map(running.check, members),
        *(memory.check(member, config.paths) for member in members),
        *(memory.limits(member, config) for member in members),
    ]
    return [_alive(health), *(_member(member, health) for member in members), *filter(None, found)]


def _silent(config: EngineConfig) -> Finding:
    os_pid = running_daemon(config.paths)
    if os_pid is None:
        return Finding("daemon", "note", "no daemon is running; `pie run` starts one")
    return Finding(
        "daemon",
        "problem",
        f"the daemon (process {os_pid}) does not answer on {config.paths.api_socket}",
        f"see {config.paths.logs}; `pie stop` ends it",
    )


def _alive(health: Health) -> Finding:
    text = f"the daemon (process {health.daemon_os_pid}, version {health.version}) is {health.status}"
    if health.protocol != PROTOCOL_VERSION:
        message = f"{text}, but speaks protocol {health.protocol} and this command {PROTOCOL_VERSION}"
        return Finding("daemon", "problem", message, "`pie stop --drain`, then run again")
    if health.status == "degraded":
        return Finding("daemon", "warning", text, "the lines below say which part is missing; it is started again")
    return Finding("daemon", "ok", text)


def _member(member: MemberView, health: Health) -> Finding:
    name = title_of(member.role, member.name)
    if failure := failure_of(member):
        fix = failure.hint or "`pie stop`, then `pie serve` shows its log"
        return Finding("daemon", "problem", f"{name} does not start: {failure.message}", fix)
    if not member.ready:
        return Finding("daemon", "note", f"{name} is starting: {progress_of(health)[0]}")
    return Finding("daemon", "ok", f"{name} is ready (process {member.os_pid})")
