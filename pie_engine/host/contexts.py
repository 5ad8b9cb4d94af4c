"""A program's contexts, mirrored in the host so that reading one needs no round trip.

Cores hold the KV; this holds the tokens that the program knows of: what it appended and what it was delivered.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pie_engine.errors import Busy, InvalidInput
from pie_engine.kv.shared import SharedList
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sight import Sight
from pie_engine.protocol.to_core import Append, CreateContext, Drop, Fork, Release, Restore, Slide, Truncate

if TYPE_CHECKING:
    from pie_engine.host.cores import CoreView
    from pie_engine.host.operations import Operation
    from pie_engine.host.process import Process


class Context:
    """One token sequence in one core. `operations` are those that the program has not been answered, oldest first."""

    def __init__(self, ctx: int, process: Process, core: CoreView, tokens: SharedList[int]) -> None:
        self.ctx = ctx
        self.process = process
        self.core = core
        self.tokens = tokens
        self.operations: dict[int, Operation] = {}

    @classmethod
    def create(cls, process: Process, core: CoreView, seed: int | None, adapter: str = "") -> Context:
        """Raises `NotFound` when the core has no such adapter."""
        adapter_id = core.adapter_id(adapter)
        context = cls(process.next_id(), process, core, SharedList(array("i")))
        seed = process.new_seed() if seed is None else seed
        core.send(CreateContext(context.ctx, process.pid, seed, adapter_id))
        return context

    def append(self, tokens: Sequence[int], placement: Placement | None = None) -> None:
        self.require_idle("append to")
        self.check_append(tokens, placement)
        self.tokens.extend(tokens)
        self.core.send(Append(self.ctx, list(tokens), placement))

    def restore(self, name: str, tokens: Sequence[int], sight: Sight | None) -> None:
        """The content of the saved context `name`, into an empty one."""
        self.core.model.check_tokens(tokens)
        if sight is None:
            # Else there may be more tokens than positions.
            self.core.model.check_length(len(tokens))
        self.tokens.extend(tokens)
        self.core.send(Append(self.ctx, list(tokens)))
        self.core.send(Restore(self.ctx, name, sight))

    def check_append(self, tokens: Sequence[int], placement: Placement | None = None) -> None:
        """Refuse at once what the core would refuse later."""
        self.core.model.check_tokens(tokens)
        self.core.model.check_length(len(self.tokens) + len(tokens))
        if placement is not None:
            placement.check(len(self.tokens), len(tokens), self.core.model.max_context_tokens)

    def fork(self) -> Context:
        if any(operation.num_unapplied for operation in list(self.operations.values())[1:]):
            raise Busy(f"context {self.ctx} has a pass with tokens in its queue", hint="await it, then fork")
        child = Context(self.process.next_id(), self.process, self.core, self.tokens.fork(len(self.tokens)))
        self.core.send(Fork(self.ctx, child.ctx, len(self.tokens)))
        return child

    def truncate(self, length: int) -> None:
        self.require_idle("truncate")
        if length > len(self.tokens):
            raise InvalidInput(f"cannot truncate context {self.ctx} to {length} tokens: it has {len(self.tokens)}")
        self.tokens.truncate(length)
        self.core.send(Truncate(self.ctx, length))

    def drop(self, first: int, end: int) -> None:
        self.require_idle("drop from")
        if not first < end <= len(self.tokens):
            raise InvalidInput(
                f"cannot drop tokens {first} … {end - 1} of context {self.ctx}: it has {len(self.tokens)}"
            )
        self.core.send(Drop(self.ctx, first, end))

    def slide(self, window: int, sinks: int) -> None:
        self.require_idle("set the window of")
        if window < 1:
            raise InvalidInput("window must be 1 or more: a token sees at least itself")
        self.core.send(Slide(self.ctx, window, sinks))

    def release(self) -> None:
        for operation in list(self.operations.values()):
            operation.context_released()
        self.core.send(Release(self.ctx))

    def require_idle(self, verb: str) -> None:
        if self.operations:
            operation = next(iter(self.operations.values()))
            raise Busy(f"cannot {verb} context {self.ctx} while {operation.kind} runs on it", hint="await it first")

    def require_no_plan(self) -> None:
        """Other operations queue up behind one another; behind a plan nobody knows which tokens they would see."""
        if any(operation.is_stream for operation in self.operations.values()):
            raise Busy(f"context {self.ctx} is generating", hint="finish or stop the stream first, or fork the context")
