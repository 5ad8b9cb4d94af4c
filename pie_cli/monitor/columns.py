"""The columns of the programs table: what each shows, and by what it sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pie_cli.monitor import format
from pie_cli.monitor.view import Row

MARKS = {"running": "▶", "computing": "▷", "starting": "○", "queued": "◌", "idle": "·", "paused": "‖"}
"""Before the state, so that it is told at a glance; a wait has `…`."""
LASTING = frozenset({"computing", "starting", "queued", "paused"})
"""States of which it matters how long they last, as of all waits."""


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    title: str
    width: int
    text: Callable[[Row], str]
    order: Callable[[Row], float | str]
    about: str
    is_number: bool = True

    @property
    def starts_with_most(self) -> bool:
        return self.is_number


def _text(key: str, title: str, width: int, text: Callable[[Row], str], about: str) -> Column:
    return Column(key, title, width, text, text, about, is_number=False)


def _number(key: str, title: str, width: int, value: Callable[[Row], float], about: str) -> Column:
    return Column(key, title, width, lambda row: format.count(value(row)), value, about)


def _credits(key: str, title: str, width: int, value: Callable[[Row], float], about: str) -> Column:
    """Who has used no model was given none."""

    def text(row: Row) -> str:
        return format.credits(value(row)) if row.now.model else format.NOTHING

    return Column(key, title, width, text, value, about)


def _part(key: str, title: str, width: int, value: Callable[[Row], float | None], about: str) -> Column:
    def order(row: Row) -> float:
        part = value(row)
        return -1.0 if part is None else part

    return Column(key, title, width, lambda row: format.percent(value(row)), order, about)


def state_text(row: Row) -> str:
    """`▶ running`, `… pages 3s`: of a wait with how long it has lasted."""
    state = row.now.state
    lasts = f" {format.age(row.in_state_s)}" if row.is_waiting or state in LASTING else ""
    return f"… {row.waits_for_what}{lasts}" if row.is_waiting else f"{MARKS.get(state, ' ')} {state}{lasts}"


def pages_text(row: Row) -> str:
    """`12`, `12/4` with four shared, `12/4+8` with eight in host memory."""
    now = row.now
    shared = f"/{now.num_shared_pages}" if now.num_shared_pages else ""
    return f"{now.num_pages}{shared}" + (f"+{now.num_host_pages}" if now.num_host_pages else "")


COLUMNS = (
    _text("pid", "PID", 8, lambda row: row.now.pid[:8], "process id, or how it begins"),
    _text("program", "PROGRAM", 16, lambda row: row.label, "program and version"),
    _text("state", "STATE", 16, state_text, "what it does, or waits for, and for how long"),
    _part("share", "SHARE", 5, lambda row: row.batch_share, "its part of the tokens of the batches"),
    Column(
        "pages",
        "PAGES",
        9,
        pages_text,
        lambda row: row.now.num_pages,
        "KV pages held / of these shared + in host memory",
    ),
    Column("rate", "TOK/S", 6, lambda row: format.rate(row.tokens_s), lambda row: row.tokens_s, "tokens made a second"),
    _credits("bid", "BID", 6, lambda row: row.now.bid, "credits for a page and a step"),
    _credits("balance", "BALANCE", 7, lambda row: row.now.balance, "credits left"),
    _credits("rent", "RENT", 6, lambda row: row.now.rent, "credits paid so far"),
    _number("tokens", "TOKENS", 6, lambda row: row.now.num_generated, "tokens made"),
    _part("cache", "CACHE", 5, lambda row: row.cache_hit, "its part of the prompt that did not have to run"),
    _part("accept", "ACCEPT", 6, lambda row: row.accept_rate, "of the drafted tokens, those that were right"),
    _text("owner", "OWNER", 10, lambda row: row.now.user, "who launched it"),
    Column("age", "AGE", 6, lambda row: format.age(row.age_s), lambda row: row.age_s, "since its launch"),
    _number("contexts", "CTX", 4, lambda row: row.now.num_contexts, "contexts"),
    _credits("paying", "RENT/S", 6, lambda row: row.rent_s, "credits paid a second"),
    _credits("dividends", "DIVID", 6, lambda row: row.now.dividends, "credits got back so far"),
    _credits("endowment", "ENDOWED", 7, lambda row: row.now.endowment, "credits it was given"),
    _number("made", "MADE", 6, lambda row: row.now.num_made, "pages made, at one credit each"),
    _number("moved", "MOVED", 5, lambda row: row.now.num_moved_out, "times that a context lost its pages"),
    _number("prompt", "PROMPT", 6, lambda row: row.now.num_prompt, "prompt tokens"),
    _text("model", "MODEL", 12, lambda row: row.now.model, "the model it runs on"),
    _text("host", "HOST", 8, lambda row: row.now.host, "the process that runs it"),
    _text("why", "WHY", 36, lambda row: row.now.waits_for, "for what or whom it waits, in a line"),
)
BY_KEY = {column.key: column for column in COLUMNS}
DEFAULT = (
    *("pid", "program", "state", "share", "pages", "rate", "bid", "balance", "rent", "tokens", "cache", "accept"),
    *("owner", "age", "contexts", "moved", "why"),
)
FIXED = BY_KEY["pid"]
"""Stays where it is when the others are moved."""
GAP = 1


def shown(keys: tuple[str, ...], width: int, first: int = 0) -> tuple[list[Column], int]:
    """The columns that fit into `width`, the PID and then those from number `first` on; and how many do not.

    The last one takes what is left, where it is text.
    """
    wanted = [BY_KEY[key] for key in keys if key in BY_KEY and key != FIXED.key]
    columns, room = [FIXED], width - FIXED.width
    for column in wanted[first:]:
        if column.width + GAP > room:
            break
        columns.append(column)
        room -= column.width + GAP
    return columns, len(wanted) - (len(columns) - 1)
