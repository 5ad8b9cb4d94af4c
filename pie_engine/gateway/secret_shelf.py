"""The secrets of users: kept in the database, handed to the programs whose manifests name them, shown to nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pie_engine.errors import InvalidInput, NotFound
from pie_engine.gateway.turn import Turn
from pie_engine.protocol.http import SecretView
from pie_engine.protocol.program import SECRET
from pie_engine.protocol.to_host import NO_SECRETS, Secrets
from pie_engine.store.store import Store

MIN_CHARS = 4
"""Shorter ones would be found in whatever a program says, and taken out of it."""
MAX_BYTES = 64 * 1024


class SecretShelf:
    """By user and name."""

    def __init__(self, store: Store, turn: Turn) -> None:
        self._store = store
        self._turn = turn

    def list(self, user: str) -> list[SecretView]:
        return [SecretView(name, set_at) for name, set_at in self._store.secrets(user)]

    async def set(self, user: str, name: str, value: str) -> SecretView:
        """Raises `InvalidInput` for a name or a value that cannot be one."""
        if not SECRET.fullmatch(name):
            raise InvalidInput(f"`{name}` cannot be the name of a secret", hint="like `API_KEY`: letters, digits, `_`")
        if not len(value) >= MIN_CHARS or len(value.encode("utf-8", "replace")) > MAX_BYTES:
            raise InvalidInput(
                f"the value of `{name}` has {len(value)} characters",
                hint=f"{MIN_CHARS} at least, so that it can be kept out of events, and {MAX_BYTES // 1024} KiB at most",
            )
        now = time.time()
        await self._turn.write(lambda store: store.set_secret(user, name, value, now))
        return SecretView(name, now)

    async def remove(self, user: str, name: str) -> None:
        if not any(known == name for known, _ in self._store.secrets(user)):
            raise NotFound(f"there is no secret `{name}`", hint="`pie secret list` shows their names")
        await self._turn.write(lambda store: store.remove_secret(user, name))

    def values(self, user: str, names: Sequence[str], program: str) -> Secrets:
        """What a program is given. Raises `NotFound` naming those that are not set."""
        if not names:
            return NO_SECRETS
        known = self._store.secret_values(user, names)
        missing = [name for name in names if name not in known]
        if missing:
            listed = ", ".join(f"`{name}`" for name in missing)
            raise NotFound(
                f"`{program}` needs the secret {listed}, which is not set",
                hint=f"`pie secret set {missing[0]}`",
            )
        return Secrets(known)
