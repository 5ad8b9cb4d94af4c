"""Operations of one context take turns: each begins when the one before it is over."""

from __future__ import annotations

import logging

from pie_engine.core.operation import Operation
from pie_engine.core.plan import PlanOperation
from pie_engine.core.scheduler import Scheduler
from pie_engine.core.state import Context, Process
from pie_engine.errors import ErrorInfo, PieError, info_of

log = logging.getLogger(__name__)


class Turns:
    """The life of operations from their arrival to their one answer."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.plans: dict[PlanOperation, None] = {}
        """Begun and not over, parked ones too."""
        self.timed: dict[Operation, None] = {}
        """Those with a deadline that are not over, begun or not."""
        self.waiting: dict[Context, None] = {}
        """Contexts whose first operation was not ready when its turn came."""
        self._charged: dict[Process, None] = {}
        """Processes of which an operation has ended since their hosts were told what that took."""

    def enqueue(self, operation: Operation) -> None:
        context = operation.context
        self._is_back(context)
        context.queue.append(operation)
        context.process.host.operations[operation.op] = operation
        if operation.deadline is not None:
            self.timed[operation] = None
        if context.process.profile is not None:
            context.process.profile.queued(operation)
        if len(context.queue) == 1:
            self._begin_next(context)

    def end(self, operation: Operation) -> None:
        """The operation is over; the next one begins."""
        context = operation.context
        was_first = context.queue[0] is operation
        self._forget(operation)
        self._charged[context.process] = None
        if was_first:
            self._begin_next(context)

    def tell_spent(self) -> None:
        """Hosts hear what the market has taken from those of whom an operation has ended, when the step is settled."""
        for process in self._charged:
            if process.host.processes.get(process.pid) is process:
                process.tell_spent()
        self._charged.clear()

    def fail(self, operation: Operation, error: ErrorInfo) -> None:
        operation.fail(error)
        self.end(operation)

    def fail_all(self, context: Context, error: ErrorInfo) -> None:
        """Every operation on the context ends with `error`."""
        for operation in reversed(context.queue.copy()):
            self.fail(operation, error)

    def abandon(self, context: Context) -> None:
        """Every operation on the context is dropped without an answer: nobody is left who waits for one."""
        for operation in context.queue.copy():
            self._forget(operation)

    def settle(self, operation: Operation) -> None:
        """After a change: it may be over, parked or able to run."""
        if operation.is_over:
            self.end(operation)
        elif operation.has_begun:
            (self._scheduler.remove if operation.is_parked else self._scheduler.add)(operation)

    def resume(self, plan: PlanOperation) -> None:
        """A plan that had ended runs again: its program steered it before the end had reached it."""
        context = plan.context
        assert context.is_idle, "an ended plan is only kept until the next operation begins"
        context.ended_plan = None
        self._is_back(context)
        context.queue.append(plan)
        if context.process.profile is not None:
            context.process.profile.queued(plan)
        self.plans[plan] = None
        if plan.deadline is not None:
            self.timed[plan] = None

    def pause(self, process: Process, now: float) -> None:
        """Nothing of it runs from here on, and its deadlines do not pass."""
        if process.paused_at is not None:
            return
        process.paused_at = now
        for context in process.contexts.values():
            for operation in context.queue:
                self._scheduler.remove(operation)
                self.timed.pop(operation, None)
            self._scheduler.rest(context)
            self._scheduler.claims.bid(context)

    def go_on(self, process: Process, now: float) -> None:
        """The pause is over."""
        if process.paused_at is None:
            return
        paused_s, process.paused_at = now - process.paused_at, None
        for context in process.contexts.values():
            for operation in context.queue:
                if operation.deadline is not None:
                    operation.deadline += paused_s
                    self.timed[operation] = None
            self._scheduler.claims.bid(context)
            if context.queue:
                self._scheduler.park(context)
                self.settle(context.queue[0])

    def expire(self, now: float) -> None:
        """End what has no time left."""
        for operation in [each for each in self.timed if each.deadline is not None and each.deadline <= now]:
            operation.expire()
            self.end(operation)

    def forget_ended(self, context: Context) -> None:
        """The context goes on: its host has seen the end of the last plan."""
        if context.ended_plan is not None:
            del context.process.host.operations[context.ended_plan.op]
            context.ended_plan = None

    def _is_back(self, context: Context) -> None:
        """Its program needs it again."""
        if context.is_away:
            context.is_away = False
            self._scheduler.claims.bid(context)

    def _begin_next(self, context: Context) -> None:
        while context.queue:
            operation = context.queue[0]
            self.forget_ended(context)
            if not operation.is_ready:
                self.waiting[context] = None
                self._scheduler.park(context)
                if context.process.profile is not None:
                    context.process.profile.waits_for_grammar(operation)
                return
            _begin(operation)
            if context.process.profile is not None:
                context.process.profile.begun(operation)
            if not operation.is_over:
                if operation.is_parked:
                    self._scheduler.park(context)
                else:
                    self._scheduler.add(operation)
                if isinstance(operation, PlanOperation):
                    self.plans[operation] = None
                return
            self._forget(operation)
        self._scheduler.rest(context)

    def begin_waiting(self) -> None:
        """Begin what has become ready since."""
        for context in list(self.waiting):
            first = context.queue[0] if context.queue else None
            if first is None or first.has_begun or first.is_ready:
                del self.waiting[context]
                if first is not None and not first.has_begun:
                    self._begin_next(context)

    def _forget(self, operation: Operation) -> None:
        context = operation.context
        context.queue.remove(operation)
        self._scheduler.remove(operation)
        self.timed.pop(operation, None)
        if context.process.profile is not None:
            context.process.profile.ended(operation)
        if isinstance(operation, PlanOperation):
            self.plans.pop(operation, None)
            if operation.ending != "none":
                context.ended_plan = operation
                return
        del context.process.host.operations[operation.op]


def _begin(operation: Operation) -> None:
    try:
        operation.begin()
    except PieError as error:
        operation.fail(error.info)
    except Exception as error:
        log.exception("operation %d of %s cannot begin", operation.op, operation.context.process.pid)
        operation.fail(info_of(error))
