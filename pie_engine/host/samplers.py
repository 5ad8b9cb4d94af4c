"""Samplers as guests send them: one record, with what few need in an option of its own."""

from __future__ import annotations

import base64
import struct
from typing import Any

from pie_engine.errors import InvalidInput
from pie_engine.host.models import unpack_tokens
from pie_engine.protocol.sampling import Sampler

_PAIR = struct.Struct("<If")


def sampler_of(record: dict[str, Any]) -> Sampler:
    """From `generate.sampler`. Ranges are checked by the core; raises `InvalidInput` for what cannot be read."""
    fields = dict(record)
    more = fields.pop("more", None)
    if more is None:
        return Sampler(**fields)
    more = dict(more)
    for name in ("dry_breakers", "banned_tokens"):
        more[name] = tuple(unpack_tokens(more[name]))
    if more["allowed_tokens"] is not None:
        more["allowed_tokens"] = tuple(unpack_tokens(more["allowed_tokens"]))
    more["logit_bias"] = _unpack_bias(more["logit_bias"])
    return Sampler(**fields, **more)


def _unpack_bias(packed: str) -> dict[int, float]:
    try:
        return dict(_PAIR.iter_unpack(base64.b64decode(packed, validate=True)))
    except (ValueError, struct.error) as error:
        raise InvalidInput(f"`logit_bias` is not base64 of little-endian (u32, f32) pairs: {error}") from error
