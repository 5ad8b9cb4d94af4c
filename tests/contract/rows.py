"""Rows for a driver, and the pages that they take."""

from __future__ import annotations

from collections.abc import Iterable

from pie_engine.driver.base import Driver, Row
from pie_engine.protocol.sampling import GREEDY, Sampler
from tests.contract.conftest import PAGE

PROMPT = [5 + 7 * i % 300 for i in range(29)]
MIXED = Sampler(temperature=0.8, top_k=40, top_p=0.9)


def pages_for(num_tokens: int, first: int = 0, stride: int = 1) -> list[int]:
    return [first + stride * i for i in range(-(-num_tokens // PAGE))]


def prefill(driver: Driver, tokens: list[int], pages: list[int], start: int = 0, chunk: int = 1000) -> int:
    """Run `tokens` in chunks and return the greedy token after the last."""
    for at in range(0, len(tokens), chunk):
        part = tokens[at : at + chunk]
        is_last = at + chunk >= len(tokens)
        [result] = driver.execute([Row(part, start + at, pages, GREEDY if is_last else None)])
        assert result.error is None
        assert (result.token is not None) == is_last
    assert result.token is not None
    return result.token


def decode(driver: Driver, token: int, start: int, pages: list[int], count: int) -> list[int]:
    tokens = [token]
    for position in range(start, start + count):
        [result] = driver.execute([Row([tokens[-1]], position, pages, GREEDY)])
        assert result.token is not None
        tokens.append(result.token)
    return tokens


def mask_of(tokens: Iterable[int], num_bytes: int = 40) -> bytes:
    return sum(1 << token for token in tokens).to_bytes(num_bytes, "little")
