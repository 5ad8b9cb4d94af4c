"""The page of the diagnosis, and the log."""

from __future__ import annotations

import time

from pie_cli.monitor.panels.look import heading
from pie_cli.monitor.text import Line, cut_line, line, wrap
from pie_cli.monitor.view import View

DOCS = "docs/monitor.md"


def lines(view: View, width: int, height: int) -> list[Line]:
    """Each finding whole, with the programs to blame and where to read more."""
    drawn = [heading("Diagnosis", width)]
    if not view.findings:
        drawn.append(line(("✓ ", "good"), "nothing stands out"))
    for finding in view.findings:
        mark, style = ("‼ ", "bad") if finding.is_alert else ("! ", "warn")
        for i, text in enumerate(wrap(finding.sentence, width - 2)):
            drawn.append(line((mark if i == 0 else "  ", style), (text, style)))
        if finding.pids:
            drawn.append(line(("  to blame: ", "dim"), "  ".join(finding.pids)))
        drawn.append(line((f"  what to do: {DOCS}#{finding.code}", "dim")))
    room = height - len(drawn)
    return [cut_line(each, width) for each in [*drawn, *log(view, width, room)]][:height]


def log(view: View, width: int, height: int) -> list[Line]:
    """What happened, the newest first."""
    if height < 2:
        return []
    drawn = [heading("Log", width)]
    happened = list(view.log)[-(height - 1) :]
    if not happened:
        drawn.append(line(("nothing yet", "dim")))
    for each in reversed(happened):
        clock = time.strftime("%H:%M:%S", time.localtime(each.at))
        pid = f"{each.pid[:8]} " if each.pid else ""
        drawn.append(cut_line(line((f"{clock} ", "dim"), (pid, "bold"), each.text), width))
    return drawn
