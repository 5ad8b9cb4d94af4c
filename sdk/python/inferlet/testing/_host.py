"""The fake host, all interfaces together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inferlet.testing._children import Program
from inferlet.testing._generation import Reply
from inferlet.testing._market import FakeMarket
from inferlet.testing._passes import FakePasses


class FakeHost(FakePasses, FakeMarket):
    """All interfaces of the WIT over a scripted model.

    A token is a character, or one special token like `<|user|>`. Everything is ready at once. `calls` counts what was
    called, by `interface.function`.
    """

    def __init__(
        self,
        *,
        replies: Sequence[Reply] = (),
        inbox: Sequence[Any] = (),
        adapters: Sequence[str] = (),
        secrets: Mapping[str, str] | None = None,
        children: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__()
        self.replies.extend(replies)
        self.inbox.extend(json.dumps(message) for message in inbox)
        self.adapters.extend(adapters)
        self.secrets.update(secrets or {})
        self.programs.update(children or {})
