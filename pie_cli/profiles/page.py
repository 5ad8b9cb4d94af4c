"""A profile as a page: one file without network, whole also where no script runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pie_cli.profiles.awaits import awaits, lines
from pie_cli.profiles.hints import hints
from pie_cli.profiles.model import Profile
from pie_cli.profiles.phases import (
    CHILDREN,
    CLIENT,
    DECODE,
    GRAMMAR,
    HOST,
    MEANINGS,
    PAGES,
    PREFILL,
    PYTHON,
    QUEUE,
    SLEEP,
    START,
    parts_of,
    phases,
)
from pie_cli.profiles.text import counts, courses, duration
from pie_cli.profiles.totals import Series, series

TEMPLATE = Path(__file__).with_name("page.html")
FIELD = re.compile(r"\{\{(\w+)\}\}")
COLOURS = {
    PREFILL: "#3b7dd8",
    DECODE: "#49a75f",
    QUEUE: "#c9a227",
    GRAMMAR: "#2f9c95",
    PAGES: "#c0392b",
    CHILDREN: "#b5527f",
    CLIENT: "#8e5bbf",
    SLEEP: "#9aa5b1",
    PYTHON: "#e0822f",
    HOST: "#5f6b7a",
    START: "#b7bec7",
}
ROW_HEIGHT = 18
CURVE_HEIGHT = 40
NUM_DOTS = 20_000
"""What is shorter than such a part of the time is drawn together with what is next to it."""
MAX_TASKS = 64
NUM_BINS = 400


@dataclass(frozen=True)
class Box:
    """Something that took a while."""

    at: int
    took: int
    colour: str
    title: str


def page(profile: Profile) -> str:
    """HTML."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(profile.launched))
    ended = f"; ended with {profile.outcome}" if profile.outcome not in ("return", "") else ""
    whole = "" if profile.is_whole else "; the profile ends before the program"
    fields = {
        "title": escape(f"{profile.program}@{profile.version}: {duration(profile.wall_us)}"),
        "subtitle": escape(f"process {profile.pid}, launched {when}{ended}{whole}"),
        "bar": "".join(_bar(profile)),
        "phases": "".join(_phase_rows(profile)),
        "counts": "<br>".join(escape(line) for line in counts(profile)),
        "courses": escape("\n".join(courses(profile))),
        "hints": "".join(_hints(profile)),
        "tracks": "\n".join(_tracks(profile)),
        "end": duration(profile.wall_us),
        "awaits": _await_table(profile),
        "wall": str(max(profile.wall_us, 1)),
    }
    return FIELD.sub(lambda match: fields[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def _bar(profile: Profile) -> Iterator[str]:
    for name, took in phases(profile).items():
        share = 100 * took / max(profile.wall_us, 1)
        if share > 0.05:
            title = escape(f"{name}: {duration(took)}")
            yield f'<div style="width:{share:.2f}%;background:{COLOURS[name]}" title="{title}"></div>'


def _phase_rows(profile: Profile) -> Iterator[str]:
    for name, took in phases(profile).items():
        if took >= 0.5:
            share = 100 * took / max(profile.wall_us, 1)
            swatch = f'<span class="swatch" style="background:{COLOURS[name]}"></span>'
            yield (
                f'<tr><td>{swatch} {escape(name)}</td><td class="number">{duration(took)}</td>'
                f'<td class="number">{share:.0f} %</td><td class="soft">{escape(MEANINGS[name])}</td></tr>'
            )


def _hints(profile: Profile) -> Iterator[str]:
    found = hints(profile)
    if found:
        yield "<h2>Slow patterns</h2>"
    for hint in found:
        places = ", ".join(f"<code>{escape(place)}</code>" for place in hint.places)
        yield (
            f'<div class="hint" data-hint="{escape(hint.name)}"><b>{_marked(hint.what)}</b><br>at {places}<br>'
            f"{_marked(hint.remedy)}</div>"
        )


def _marked(text: str) -> str:
    """What is in backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _await_table(profile: Profile) -> str:
    rows = "".join(_await_rows(profile))
    names = ("", "", "line", "times", "tasks", "in all", "longest", "waited for")
    header = "".join(f"<th>{name}</th>" for name in names)
    return f'<h2>Awaits by line</h2>\n<table id="awaits"><tr>{header}</tr>{rows}</table>' if rows else ""


def _await_rows(profile: Profile) -> Iterator[str]:
    for line in lines(profile):
        share = 100 * line.wall_us / max(profile.wall_us, 1)
        yield (
            f'<tr><td class="number">{duration(line.wall_us)}</td><td class="number">{share:.0f} %</td>'
            f'<td><code>{escape(line.place or "?")}</code></td><td class="number">{line.count}</td>'
            f'<td class="number">{len(line.tasks)}</td><td class="number">{duration(line.took_us)}</td>'
            f'<td class="number">{duration(line.longest_us)}</td><td>{escape(line.phases_text())}</td></tr>'
        )


# The timeline.


def _tracks(profile: Profile) -> Iterator[str]:
    ran = [Box(run.at, run.took, COLOURS[PYTHON], f"runs, {duration(run.cpu)} of CPU") for run in profile.runs]
    yield _track("program", ran, profile)
    found = awaits(profile)
    for task in profile.tasks[:MAX_TASKS]:
        boxes = [
            box
            for each in found
            if each.task == task
            for box in _await_boxes(profile, each.handle, each.at, each.took, each.place)
        ]
        boxes += [
            Box(call.at, max(call.took, 1), COLOURS[HOST], f"{call.function} {duration(call.took)}, {call.place}")
            for call in profile.calls
            if call.task == task
        ]
        yield _track(task, boxes, profile)
    for model, steps in profile.steps.items():
        boxes = [
            Box(
                step.at,
                step.took,
                COLOURS[PREFILL if step.num_prefill else DECODE],
                f"step {step.number}, {duration(step.took)}: {step.num_prefill} tokens of prompts, "
                f"{step.num_decode} of replies, {step.num_sequences} sequences, {step.num_free_pages} pages free",
            )
            for step in steps
        ]
        yield _track(f"steps of {model}", boxes, profile)
    if profile.steps:
        over = series(profile, NUM_BINS)
        yield from _curves(over, profile)


def _await_boxes(profile: Profile, handle: int, at: int, took: int, place: str) -> Iterator[Box]:
    """An await, with what went on in it in colours."""
    yield Box(at, took, COLOURS[HOST], f"await {place}: {duration(took)}")
    for begin, end, phase in parts_of(profile.operations[handle], profile.wall_us):
        first, last = max(begin, at), min(end, at + took)
        if first < last:
            yield Box(first, last - first, COLOURS[phase], f"await {place}: {phase} {duration(last - first)}")


def _track(name: str, boxes: Iterable[Box], profile: Profile) -> str:
    wall = max(profile.wall_us, 1)
    drawn = "".join(
        f'<rect x="{box.at}" y="1" width="{max(box.took, 1)}" height="{ROW_HEIGHT}" fill="{box.colour}">'
        f"<title>{escape(box.title)}</title></rect>"
        for box in _merged(boxes, wall / NUM_DOTS)
    )
    return _row(name, ROW_HEIGHT + 4, wall, drawn)


def _merged(boxes: Iterable[Box], width: float) -> Iterator[Box]:
    """In order; a run of boxes that are too short to be seen is one."""
    few: list[Box] = []
    for box in boxes:
        if few and (box.took >= width or box.at - few[0].at >= width or box.colour != few[0].colour):
            yield _joined(few)
            few = []
        if box.took >= width:
            yield box
        else:
            few.append(box)
    if few:
        yield _joined(few)


def _joined(boxes: list[Box]) -> Box:
    first, last = boxes[0], boxes[-1]
    more = f" (and {len(boxes) - 1} more)" if len(boxes) > 1 else ""
    return Box(first.at, max(last.at + last.took - first.at, 1), first.colour, first.title + more)


def _curves(over: Series, profile: Profile) -> Iterator[str]:
    yield _curve("tokens/s", [a + b for a, b in zip(over.prefill, over.decode, strict=True)], COLOURS[DECODE], profile)
    yield _curve("KV pages held", over.held_pages, COLOURS[PAGES], profile)


def _curve(name: str, values: list[float], colour: str, profile: Profile) -> str:
    wall, most = max(profile.wall_us, 1), max(values) or 1.0
    width = wall / len(values)
    points = " ".join(
        f"L{index * width:.0f} {y:.1f} L{(index + 1) * width:.0f} {y:.1f}"
        for index, value in enumerate(values)
        for y in (CURVE_HEIGHT * (1 - value / most),)
    )
    title = f"<title>{escape(f'{name}: up to {most:.0f}')}</title>"
    outline = f"M0 {CURVE_HEIGHT} {points} L{wall} {CURVE_HEIGHT} Z"
    shape = f'<path d="{outline}" fill="{colour}" fill-opacity=".6">{title}</path>'
    return _row(f"{name}, up to {most:.0f}", CURVE_HEIGHT, wall, shape)


def _row(name: str, height: int, wall: int, drawn: str) -> str:
    return (
        f'<div class="name" title="{escape(name)}">{escape(name)}</div>'
        f'<svg viewBox="0 0 {wall} {height}" height="{height}" data-height="{height}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(name)}">{drawn}</svg>'
    )
