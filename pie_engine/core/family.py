"""Contexts that the core makes for itself: the beams of a search.

They are like any other context to the scheduler, the page pool and the statistics; programs do not know of them. What
is not needed any more goes when nobody is in the middle of a step's results.
"""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.core.lineage import RandomStream
from pie_engine.core.operation import Operation
from pie_engine.core.state import Context, Process
from pie_engine.core.turns import Turns
from pie_engine.kv.context import KvContext

Add = Callable[[int, Process, KvContext, RandomStream, int | None], Context]


class Family:
    """Forks of a context, and what runs on them."""

    def __init__(self, add: Add, remove: Callable[[Context], None], turns: Turns) -> None:
        self._add, self._remove, self._turns = add, remove, turns
        self._num_ids = 0
        self._dropped: list[Context] = []
        self._ended: list[Operation] = []

    def new_id(self) -> int:
        """Of a context or an operation; hosts use numbers above 0."""
        self._num_ids -= 1
        return self._num_ids

    def fork(self, parent: Context) -> Context:
        """A context with all that `parent` has, whose pages it shares."""
        kv = parent.kv.fork(parent.kv.num_tokens)
        child = self._add(self.new_id(), parent.process, kv, RandomStream(0), parent.bid)
        child.parent = parent.ctx
        child.adapter_id = parent.adapter_id
        child.backing, child.num_backed = parent.backing, parent.num_backed
        return child

    def start(self, operation: Operation) -> None:
        """Run it on its context."""
        self._turns.enqueue(operation)

    def wake(self, operation: Operation) -> None:
        """It was parked, and goes on."""
        self._turns.settle(operation)

    def drop(self, context: Context) -> None:
        """Nothing on it is wanted any more."""
        self._dropped.append(context)

    def end(self, operation: Operation) -> None:
        """It is over, by something that happened on another context."""
        self._ended.append(operation)

    def sweep(self) -> None:
        """Let go of what was dropped, and of what ended; what waited behind it begins."""
        while self._dropped or self._ended:
            dropped, self._dropped = self._dropped, []
            for context in dropped:
                if context.process.contexts.get(context.ctx) is context:
                    self._turns.abandon(context)
                    self._remove(context)
            ended, self._ended = self._ended, []
            for operation in ended:
                if operation in operation.context.queue:
                    self._turns.end(operation)
