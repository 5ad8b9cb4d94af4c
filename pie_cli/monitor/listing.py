"""Which programs the table shows, and in which order: sort, filter, search and groups, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pie_cli.monitor.columns import BY_KEY
from pie_cli.monitor.view import Row
from pie_engine.protocol.stats import ProgramState


@dataclass(frozen=True, slots=True)
class Group:
    """The programs of one owner, as a line above them."""

    owner: str
    num_programs: int
    num_pages: int
    tokens_s: float
    balance: int

    @property
    def key(self) -> str:
        return f"group {self.owner}"


Entry = Row | Group


@dataclass(frozen=True, slots=True)
class Order:
    """What the user has chosen."""

    sort: str = "rate"
    """Key of a column."""
    is_reversed: bool = False
    filter: str = ""
    is_grouped: bool = False


def entries(rows: Sequence[Row], order: Order) -> list[Entry]:
    """The rows that pass the filter, sorted; with the line of each owner before them where they are grouped."""
    kept = [row for row in rows if matches(row, order.filter)] if order.filter else list(rows)
    column = BY_KEY.get(order.sort, BY_KEY["rate"])
    # Rows of equal value stay where they are from one picture to the next.
    kept.sort(key=lambda row: row.key)
    kept.sort(key=column.order, reverse=column.starts_with_most != order.is_reversed)
    return _grouped(kept) if order.is_grouped else [*kept]


def _grouped(rows: list[Row]) -> list[Entry]:
    by_owner: dict[str, list[Row]] = {}
    for row in rows:
        by_owner.setdefault(row.now.user, []).append(row)
    listed: list[Entry] = []
    for owner in sorted(by_owner):
        members = by_owner[owner]
        listed.append(
            Group(
                owner,
                len(members),
                sum(row.now.num_pages for row in members),
                sum(row.tokens_s for row in members),
                sum(row.now.balance for row in members),
            )
        )
        listed += members
    return listed


def matches(row: Row, query: str) -> bool:
    """Whether a row has every word of a query. `owner:ada` and the like look in one field, `-word` is for rows without.

    Fields: pid, owner, program, state, model, host. Upper and lower case are the same.
    """
    return all(_has(row.now, word) for word in query.lower().split())


def _has(program: ProgramState, word: str) -> bool:
    if word.startswith("-") and len(word) > 1:
        return not _has(program, word[1:])
    name, colon, rest = word.partition(":")
    fields = {
        "pid": program.pid,
        "owner": program.user,
        "program": f"{program.program}@{program.version}",
        "state": program.state,
        "model": program.model,
        "host": program.host,
        "parent": program.parent,
    }
    if colon and name in fields:
        return rest in fields[name].lower()
    return any(word in field.lower() for field in fields.values())


def found(listed: Sequence[Entry], query: str, start: int, step: int = 1) -> int | None:
    """Index of the next row that a search finds, from `start` on and round; None: no row."""
    number = len(listed)
    for offset in range(number):
        i = (start + step * offset) % number
        entry = listed[i]
        if isinstance(entry, Row) and matches(entry, query):
            return i
    return None
