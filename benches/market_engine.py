"""An engine without a model: steps that take as long as their tokens and pages, scheduled by the policies of Pie.

The composing is the core's in small: decodes first, then prompts in chunks, pages before rows; who loses its pages has
them in host memory and gets them back before it runs again. There is no prefix cache; forks of a program share the
prompt of their first context.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from market_arrivals import Arrival

from pie_engine.market.book import PACED
from pie_engine.market.policy import Policy, StepRecord
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import CREDIT


@dataclass(frozen=True)
class Machine:
    """What steps cost; a small GPU."""

    num_pages: int = 2000
    page_size: int = 16
    max_tokens: int = 1024
    """Of a step."""
    max_rows: int = 64
    step_s: float = 0.010
    prompt_token_s: float = 50e-6
    decode_s: float = 50e-6
    page_s: float = 0.5e-6
    """To read the KV of a page."""
    move_s: float = 20e-6
    """To move a page to host memory and back."""

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def alone_s(self, arrival: Arrival) -> float:
        """How long the program takes without any other."""
        rounds, num_tokens = 0.0, 0
        for _ in range(arrival.rounds):
            num_steps = -(-arrival.prompt // self.max_tokens)
            num_tokens += arrival.prompt + arrival.output
            decode_s = self.step_s + arrival.forks * (self.decode_s + self.pages_for(num_tokens) * self.page_s)
            rounds += num_steps * self.step_s + arrival.prompt * self.prompt_token_s
            rounds += max(arrival.output - 1, 1) * decode_s * -(-arrival.forks // self.max_rows)
        return rounds + (arrival.rounds - 1) * arrival.think_s


class Context:
    """Tokens, of which some are computed, and the pages for them."""

    __slots__ = ("last_ran", "num_computed", "num_left", "num_pages", "num_stored", "num_tokens", "program", "row")

    def __init__(self, program: Program, row: int) -> None:
        self.program, self.row = program, row
        self.num_tokens = self.num_computed = self.num_pages = self.num_left = self.last_ran = 0
        self.num_stored = 0
        """Pages in host memory."""

    @property
    def need(self) -> int:
        return self.num_tokens - self.num_computed


@dataclass(eq=False)
class Program:
    """What became of an arrival."""

    arrival: Arrival
    pid: str
    contexts: list[Context] = field(default_factory=list)
    num_rounds: int = 0
    num_running: int = 0
    """Contexts with a reply that is not over."""
    first_at: float | None = None
    ended_at: float | None = None
    num_tokens: int = 0
    """That ran for it."""
    longest_wait: int = 0
    """Steps in which it could have run and no context of it did, in a row."""
    last_ran: int = 0
    num_moved_out: int = 0
    rent: int = 0
    """Micro-credits, at its end."""


Batch = list[tuple[Context, int]]
"""And how many tokens of it run."""


class Engine:
    """Runs programs on a machine by a policy. No clock and no chance in here."""

    def __init__(self, machine: Machine, policy: Policy, *, check_every: int = 0) -> None:
        """`check_every`: steps after which credits and pages are counted; 0: never."""
        self.machine, self.policy = machine, policy
        self.now, self.step_number = 0.0, 0
        self.num_free = machine.num_pages
        self.programs: list[Program] = []
        self.num_moves = self.num_contended = 0
        self.longest_gap_s = 0.0
        """Of a step in which somebody decoded."""
        self._runnable: dict[int, Context] = {}
        self._contexts: dict[int, Context] = {}
        """By row of the book."""
        self._num_moved = 0
        """Pages that come back in this step."""
        self._events: list[tuple[float, int, Program]] = []
        self._num_wakes = self._num_events = 0
        self._check_every = check_every

    # Programs.

    def add(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            program = Program(arrival, f"p{len(self.programs)}")
            self.programs.append(program)
            self._push(arrival.at, program)

    def _push(self, at: float, program: Program) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (at, self._num_events, program))

    @property
    def is_over(self) -> bool:
        return not self._runnable and not self._events

    @property
    def num_waiting(self) -> int:
        return sum(context.last_ran != self.step_number for context in self._runnable.values())

    def _wake_due(self) -> None:
        if not self._runnable and self._events:
            self.now = max(self.now, self._events[0][0])
        while self._events and self._events[0][0] <= self.now:
            self._begin_round(heapq.heappop(self._events)[2])

    def _begin_round(self, program: Program) -> None:
        arrival, policy = program.arrival, self.policy
        if not program.contexts:
            endowment = round(arrival.endowment * CREDIT)
            seat = policy.join(program.pid, endowment, self.step_number, priority=arrival.priority)
            for _ in range(arrival.forks):
                context = Context(program, policy.book.open(seat, self.step_number))
                program.contexts.append(context)
                self._contexts[context.row] = context
        bid = PACED if arrival.bid is None else round(arrival.bid * CREDIT)
        program.last_ran = self.step_number
        for number, context in enumerate(program.contexts):
            policy.set_bid(context.row, bid)
            context.num_tokens += 1 if number else arrival.prompt
            context.num_left = arrival.output
            self._num_wakes += 1
            num_wanted = self.machine.pages_for(context.num_tokens)
            policy.book.wake(context.row, self._num_wakes, self.step_number, num_wanted)
            self._runnable[context.row] = context
        program.num_running = len(program.contexts)

    def _end_reply(self, context: Context) -> None:
        program, policy = context.program, self.policy
        del self._runnable[context.row]
        policy.book.rest(context.row, self.step_number)
        program.num_running -= 1
        if program.num_running:
            return
        program.num_rounds += 1
        if program.num_rounds < program.arrival.rounds:
            if program.arrival.is_away:
                for each in program.contexts:
                    policy.set_bid(each.row, 0)
            self._push(self.now + program.arrival.think_s, program)
            return
        self._end(program)

    def _end(self, program: Program) -> None:
        program.ended_at = self.now
        program.rent = self.policy.ledger.account(program.pid).rent
        for context in program.contexts:
            self.num_free += context.num_pages
            self.policy.close(context.row)
            del self._contexts[context.row]
        self.policy.leave(program.pid)

    # Pages.

    def _set_pages(self, context: Context, num_pages: int) -> None:
        self.num_free += context.num_pages - num_pages
        context.num_pages = self.policy.book.num_pages[context.row] = num_pages
        self.policy.charge([context.row], num_pages * PARTS)

    def _put_back(self, context: Context) -> None:
        context.num_stored = self.machine.pages_for(context.num_computed)
        context.program.num_moved_out += 1
        self.policy.put_back(context.row)
        self.num_free += context.num_pages
        context.num_pages = 0

    def _reserve(self, context: Context, busy: list[int]) -> bool:
        """Pages for all tokens of the context, from others if need be."""
        num_wanted = self.machine.pages_for(context.num_tokens)
        num_missing = num_wanted - context.num_pages - self.num_free
        if num_missing > 0:
            for row in self.policy.victims(context.row, num_missing, self.step_number, busy).tolist():
                self._put_back(self._contexts[row])
                if num_wanted - context.num_pages <= self.num_free:
                    break
            else:
                return False
        self.num_moves += context.num_stored
        self._num_moved += context.num_stored
        context.num_stored = 0
        if num_wanted > context.num_pages:
            self._set_pages(context, num_wanted)
        return True

    # Steps.

    def step(self) -> None:
        """One step, or the way to the next arrival."""
        self._wake_due()
        if not self._runnable:
            return
        self.step_number += 1
        self._num_moved = 0
        claims = list(self._runnable.values())
        record = None
        batch = self._everything(claims)
        if batch is None:
            batch, record = self._compose(claims)
        self._run(batch)
        if record is None or not (record.lacked_pages or record.lacked_batch):
            self.policy.all_ran(self.step_number)
        else:
            self.num_contended += 1
            self.policy.settle(record)
        for context, _ in batch:
            if not context.num_left:
                self._end_reply(context)
        if self._check_every and self.step_number % self._check_every == 0:
            self.check()

    def _everything(self, claims: list[Context]) -> Batch | None:
        """All claims whole, where they fit."""
        machine = self.machine
        if len(claims) > machine.max_rows or sum(each.need for each in claims) > machine.max_tokens:
            return None
        num_new = sum(machine.pages_for(each.num_tokens) - each.num_pages for each in claims)
        if num_new > self.num_free:
            return None
        for each in claims:
            self._reserve(each, [])
        return [(each, each.need) for each in claims]

    def _compose(self, claims: list[Context]) -> tuple[Batch, StepRecord]:
        machine, step = self.machine, self.step_number
        order = self.policy.order([each.row for each in claims], step).tolist()
        num_prompts = sum(each.need > 1 for each in claims)
        decodes_left, rows_left = machine.max_rows - bool(num_prompts), machine.max_rows
        tokens_left = machine.max_tokens - min(len(claims) - num_prompts, decodes_left)
        batch: Batch = []
        busy: list[int] = []
        tokens: list[int] = []
        lacked_batch: list[int] = []
        lacked_pages: list[int] = []
        record = StepRecord(step, busy, tokens, lacked_pages, lacked_batch)
        is_blocked = False
        for place in order:
            context = claims[place]
            need = context.need
            if not rows_left or (tokens_left <= 0 if need > 1 else decodes_left <= 0):
                lacked_batch.append(context.row)
                continue
            is_newcomer = not context.num_pages
            if (is_newcomer and is_blocked) or not self._reserve(context, busy):
                is_blocked = is_blocked or is_newcomer
                lacked_pages.append(context.row)
                continue
            num_tokens = min(need, max(tokens_left, 1))
            batch.append((context, num_tokens))
            busy.append(context.row)
            tokens.append(num_tokens)
            rows_left -= 1
            if need > 1:
                tokens_left -= num_tokens
            else:
                decodes_left -= 1
        return batch, record

    def _run(self, batch: Batch) -> None:
        machine, made = self.machine, self.policy.made
        took_s, num_decodes = machine.step_s + self._num_moved * machine.move_s, 0
        for context, num_tokens in batch:
            took_s += context.num_pages * machine.page_s
            took_s += machine.decode_s if num_tokens == 1 else num_tokens * machine.prompt_token_s
            num_decodes += num_tokens == 1
        self.now += took_s
        if num_decodes:
            self.longest_gap_s = max(self.longest_gap_s, took_s)
        for context, num_tokens in batch:
            program, before = context.program, context.num_computed // machine.page_size
            context.num_computed += num_tokens
            context.last_ran = self.step_number
            if num_made := context.num_computed // machine.page_size - before:
                made(self.policy.book.account[context.row], num_made)
            program.num_tokens += num_tokens
            program.longest_wait = max(program.longest_wait, self.step_number - program.last_ran - 1)
            program.last_ran = self.step_number
            if context.need:
                continue
            if program.first_at is None:
                program.first_at = self.now
            context.num_left -= 1
            if context.num_left:
                context.num_tokens += 1

    def check(self) -> None:
        """Credits and pages add up."""
        found = self.policy.ledger.violations()
        held = sum(context.num_pages for context in self._contexts.values())
        if held + self.num_free != self.machine.num_pages:
            found.append(f"{held} pages are held and {self.num_free} free, of {self.machine.num_pages}")
        assert not found, f"step {self.step_number}: {'; '.join(found)}"
