"""What a context sees in the form in which it is saved, and back."""

from __future__ import annotations

from pie_engine.kv.context import KvContext
from pie_engine.kv.view import Drop, View, Window
from pie_engine.protocol.sight import Sight


def sight_of(kv: KvContext) -> Sight | None:
    """None: each token sees everything before it, and all pages are there."""
    if kv.is_plain:
        return None
    view = kv.view or View()
    return Sight(
        drops=[(since, list(gone)) for since, gone in view.drops],
        windows=[(each.since, each.size, each.sinks) for each in view.windows],
        jumps=list(view.jumps),
        masks=[(number, list(spans)) for number, spans in sorted(view.masks.items())],
        gone=list(kv.gone),
    )


def view_of(sight: Sight) -> View | None:
    """None: everything before each token."""
    if not sight.is_view:
        return None
    return View(
        tuple(Drop(since, tuple(gone)) for since, gone in sight.drops),
        tuple(Window(*window) for window in sight.windows),
        tuple(sight.jumps),
        dict(sight.masks),
    )
