"""The compiled kernels: the same bits in any batch, chunk and number of threads. That they are the right bits,
`test_parity` says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.compiled import CompiledDecoder
from pie_engine.model.kv_cache import KvCache
from pie_engine.model.span import Span
from tests import models

NUM_PAGES = 64
PAGE = 16


SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "float32": ("biases", {}),
    "bfloat16": ("starcoder2", {}),
    "bfloat16 experts": ("qwen3-moe", {"num_experts_per_tok": 4}),
    "bfloat16 odd": ("gpt-oss", {"hidden_size": 72, "head_dim": 20, "intermediate_size": 40, "num_attention_heads": 6}),
}
"""Biases; norms that take the mean away and an MLP without a gate; experts beside a dense layer; sinks, experts
with biases, and sizes that no vector divides. The vocabulary is never a multiple of a panel."""


@pytest.fixture(params=SHAPES, scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CompiledDecoder:
    dtype, (shape, changes) = request.param.split()[0], SHAPES[request.param]
    folder = tmp_path_factory.mktemp("kernels") / "model"
    checkpoint = Checkpoint.open(models.write_checkpoint(folder, shape, dtype=dtype, vocab_size=333, **changes))
    return CompiledDecoder(checkpoint, getattr(torch, dtype))


@pytest.fixture
def cache(model: CompiledDecoder) -> KvCache:
    return model.new_cache(NUM_PAGES, PAGE)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, model: CompiledDecoder) -> Iterator[int]:
    model.set_num_threads(request.param)
    yield request.param
    model.set_num_threads(1)


def tokens_of(length: int, seed: int = 0) -> list[int]:
    return [random.Random(seed * 1000 + index).randrange(333) for index in range(length)]


def run(model: CompiledDecoder, cache: KvCache, tokens: list[int], pages: list[int], chunks: list[int]) -> Tensor:
    """Logits of every position of one sequence, run in these chunks."""
    parts, start = [], 0
    for length in chunks:
        part = tokens[start : start + length]
        parts.append(model.forward([Span(0, length, start, pages)], part, cache, range(length)))
        start += length
    return torch.cat(parts)


def test_the_same_bits_however_a_prompt_is_cut(model: CompiledDecoder, cache: KvCache, threads: int) -> None:
    tokens = tokens_of(75)
    whole = run(model, cache, tokens, list(range(8)), [75])
    for cut in ([1] * 75, [16, 16, 16, 16, 11], [31, 2, 1, 40, 1], [74, 1]):
        assert torch.equal(run(model, cache, tokens, list(range(20, 28)), cut), whole), cut


def test_the_same_bits_in_any_company(model: CompiledDecoder, cache: KvCache, threads: int) -> None:
    lengths = [1, 5, 16, 17, 40, 41, 60]
    prompts = [tokens_of(length + 1, seed) for seed, length in enumerate(lengths)]
    pages = [list(range(5 * row, 5 * row + 5)) for row in range(len(lengths))]
    alone = [
        run(model, cache, prompt, table, [len(prompt) - 1, 1])[-1] for prompt, table in zip(prompts, pages, strict=True)
    ]
    for size in range(1, len(lengths) + 1):
        rows = random.Random(size).sample(range(len(lengths)), size)
        spans = [Span(at, 1, lengths[row], pages[row]) for at, row in enumerate(rows)]
        logits = model.forward(spans, [prompts[row][-1] for row in rows], cache, range(size))
        for at, row in enumerate(rows):
            assert torch.equal(logits[at], alone[row]), (size, row)


def test_the_same_bits_beside_a_chunk(model: CompiledDecoder, cache: KvCache, threads: int) -> None:
    tokens, other = tokens_of(33), tokens_of(50, 7)
    expected = run(model, cache, tokens, [1, 2, 3], [32, 1])[-1]
    spans = [Span(0, 1, 32, [1, 2, 3]), Span(1, 50, 0, [4, 5, 6, 7])]
    [beside] = model.forward(spans, [tokens[-1], *other], cache, [0])
    assert torch.equal(beside, expected)


def test_many_steps_with_threads_that_come_and_go(model: CompiledDecoder, cache: KvCache) -> None:
    """Each step is short, so helpers are late for most of them; whatever they do, nothing changes."""
    tokens = tokens_of(200)
    expected = run(model, cache, tokens, list(range(13)), [1] * 200)
    model.set_num_threads(4)
    try:
        for _ in range(5):
            assert torch.equal(run(model, cache, tokens, list(range(20, 33)), [1] * 200), expected)
    finally:
        model.set_num_threads(1)


def test_a_step_without_wanted_rows(model: CompiledDecoder, cache: KvCache) -> None:
    assert model.forward([Span(0, 4, 0, [0])], tokens_of(4), cache, []).shape == (0, 333)


def test_a_new_cache_and_longer_steps(model: CompiledDecoder) -> None:
    tokens = tokens_of(150)
    first, second = (model.new_cache(NUM_PAGES, PAGE) for _ in range(2))
    short = run(model, first, tokens, list(range(12)), [10] * 15)
    assert torch.equal(run(model, second, tokens, list(range(12)), [150]), short)


def test_a_page_full_of_nan_behind_the_last_token(model: CompiledDecoder, cache: KvCache) -> None:
    tokens = tokens_of(21)
    expected = run(model, cache, tokens, [3, 4], [20, 1])[-1]
    cache.keys.fill_(float("nan"))
    cache.values.fill_(float("nan"))
    assert torch.equal(run(model, cache, tokens, [3, 4], [20, 1])[-1], expected)


def test_nan_of_a_step_stays_in_it(model: CompiledDecoder, cache: KvCache) -> None:
    """Sizes are padded, and what pads a row must not outlive a step that went wrong."""
    tokens = tokens_of(21)
    expected = run(model, cache, tokens, [3, 4], [20, 1])
    values = cache.values[:, 3].clone()
    cache.values[:, 3] = float("nan")
    assert run(model, cache, tokens, [3, 4], [1])[0].isfinite().all()
    assert not model.forward([Span(0, 5, 16, [3, 4])], tokens[16:], cache, range(5)).isfinite().any()
    cache.values[:, 3] = values
    assert torch.equal(run(model, cache, tokens, [3, 4], [20, 1]), expected)


def test_the_weights_are_held_once(tmp_path: Path) -> None:
    """Tied embeddings live in the head alone, and bf16 stays bf16."""
    folder = models.write_checkpoint(tmp_path / "tied", "gqa-tied", dtype="bfloat16")
    model = CompiledDecoder(Checkpoint.open(folder), torch.bfloat16)
    assert np.shares_memory(model._embedding._numbers, model._head.panels.view(torch.uint16).numpy())
    assert model._head.panels.dtype == torch.bfloat16
