"""The processes of the engine: hosts and cores, with their processor time and memory."""

from __future__ import annotations

from pie_cli.monitor import format
from pie_cli.monitor.panels.header import device_text
from pie_cli.monitor.panels.look import heading
from pie_cli.monitor.text import Line, cut_line, fit, line
from pie_cli.monitor.view import Saved, View
from pie_cli.sizes import bytes_text

COLUMNS = (("NAME", 20), ("CPU", 6), ("MEMORY", 9), ("GPU", 5), ("GPU MEM", 9))


def lines(view: View, width: int, height: int) -> list[Line]:
    drawn = [heading("Cores", width), _head("STATE")]
    for model in view.models:
        now = model.now
        state = ("ready", "good") if now.ready else ("not ready", "bad")
        memory = bytes_text(now.device_memory_bytes) if now.device_memory_bytes else format.NOTHING
        cells = (now.name, _cpu(model.cpu), bytes_text(now.rss_bytes), format.percent(now.device_use), memory)
        drawn.append(line(_cells(cells), state, (f"  {device_text(now)}", "dim")))
    drawn += [heading("Hosts", width), _head("PROGRAMS")]
    for host in view.hosts:
        cells = (host.now.name, _cpu(host.cpu), bytes_text(host.now.rss_bytes), "", "")
        drawn.append(line(_cells(cells), f"{host.now.num_running} running, {host.now.num_warm} warm"))
    if not view.hosts:
        drawn.append(line(("none", "bad")))
    if view.saved is not None:
        drawn += [heading("Disk", width), _saved_line(view.saved)]
    return [cut_line(each, width) for each in drawn][:height]


def _saved_line(saved: Saved) -> Line:
    size = f" with {bytes_text(saved.num_bytes)}" if saved.num_contexts else ""
    changed = f"  {saved.num_new:,} new and {saved.num_deleted:,} deleted since you look"
    return line(format.plural(saved.num_contexts, "saved context") + size, (changed, "dim"))


def _head(last: str) -> Line:
    return line((_cells(tuple(title for title, _ in COLUMNS)) + last, "title"))


def _cells(values: tuple[str, ...]) -> str:
    cells = zip(values, COLUMNS, strict=True)
    return "".join(fit(value, width, right=i > 0) + "  " for i, (value, (_, width)) in enumerate(cells))


def _cpu(cores: float) -> str:
    """100 % is one processor core."""
    return format.percent(cores)
