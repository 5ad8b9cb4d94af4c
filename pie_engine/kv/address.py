"""What a full KV page is called: a strong hash of everything that its content depends on.

The key of a page is chained to the key of the page before it, so equal keys mean equal tokens from the first position
on, under the same model, dtype, adapter and mask, for contexts that may share. The hash is BLAKE2b with 256 bits
(RFC 7693): nobody can find two prompts with one key, so a hit needs no comparison of tokens.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

KEY_BYTES = 32
_PAGE = blake2b(digest_size=KEY_BYTES, person=b"pie kv page")
_HEADER = struct.Struct("<QQ")
Sharing = Literal["user", "shared", "off"]
"""Who may find whose pages: contexts of the same user, all contexts, nobody."""


def root_key(model_id: str, page_size: int, *, adapter_id: str = "", salt: str = "") -> bytes:
    """The parent of a sequence's first page. `model_id` says configuration, weights and dtype."""
    digest = blake2b(digest_size=KEY_BYTES, person=b"pie kv root")
    for field in (model_id, str(page_size), adapter_id, salt):
        encoded = field.encode()
        # With their lengths: no two lists of fields read the same.
        digest.update(struct.pack("<Q", len(encoded)) + encoded)
    return digest.digest()


def page_key(parent: bytes, first_position: int, tokens: Sequence[int], view_id: bytes = b"") -> bytes:
    """The key of the page with `tokens` at positions from `first_position`, after the page or root `parent`.

    `view_id`: what its tokens see and where they stand (`kv.view`), if that is not simply what comes before them.
    """
    digest = _PAGE.copy()
    digest.update(parent + _HEADER.pack(first_position, len(view_id)) + view_id + array("i", tokens).tobytes())
    return digest.digest()


class Sharers:
    """The roots of the contexts of one model: who has the same one shares pages."""

    def __init__(self, sharing: Sharing, model_id: str, page_size: int) -> None:
        self._sharing = sharing
        self._model_id = model_id
        self._page_size = page_size
        self._num_contexts = 0

    @property
    def outlive_contexts(self) -> bool:
        """Whether somebody may want the pages of a context when it is gone."""
        return self._sharing != "off"

    def root_of(self, user: str, adapter_id: str = "") -> bytes:
        """Of a new context of `user`."""
        self._num_contexts += 1
        salts = {"user": f"user {user}", "shared": "", "off": f"context {self._num_contexts}"}
        salt = salts[self._sharing]
        return root_key(self._model_id, self._page_size, adapter_id=adapter_id, salt=salt)
