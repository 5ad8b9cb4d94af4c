"""Holes, positions, masks and windows in pages, against Transformers with the same mask in full."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from pie_engine.driver.base import Row
from pie_engine.model.base import Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels
from pie_engine.model.kv_cache import KvCache
from pie_engine.model.load import load_model
from pie_engine.model.span import Span, row_order
from pie_engine.model.steady import deterministic
from tests import models
from tests.layouts import Line, random_line

NUM_PAGES = 40
PAGE = 16
LENGTH = 90
SHAPES = [
    ("gqa-tied", "compiled"),
    ("gqa-tied", "torch"),
    ("gemma2-even", "compiled"),
    ("gemma2", "torch"),
    ("gpt-oss", "compiled"),
    ("gpt-oss", "torch"),
    ("by-transformers-nemotron", "torch"),
    ("by-transformers-cwm", "torch"),
]
"""With windows, soft-caps and sinks; decode rows and chunks are different code in torch."""


@pytest.fixture(scope="module", params=SHAPES, ids=" ".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, torch.nn.Module]:
    shape, kernels = request.param
    torch.set_num_threads(1)
    folder = models.write_checkpoint(tmp_path_factory.mktemp("layouts") / "model", shape)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return load_model(Checkpoint.open(folder), torch.float32, kernels), theirs


def expected(pair: tuple[Model, torch.nn.Module], line: Line) -> Tensor:
    """Logits of all tokens."""
    model, theirs = pair
    return dense_logits(theirs, {layer.window for layer in model.config.layers}, line)


def dense_logits(theirs: torch.nn.Module, windows: set[int | None], line: Line) -> Tensor:
    """Of Transformers, for all tokens; `windows` of its layers, None for one that sees everything."""
    masks = {
        "sliding_attention" if window else "full_attention": _as_mask(line.is_hidden(window)) for window in windows
    }
    mask = masks if len(masks) > 1 else next(iter(masks.values()))
    with torch.inference_mode():
        return theirs(
            torch.tensor([line.tokens]), attention_mask=mask, position_ids=torch.tensor([line.positions])
        ).logits[0]


def _as_mask(is_hidden: np.ndarray) -> Tensor:
    mask = torch.zeros(is_hidden.shape).masked_fill_(torch.from_numpy(is_hidden), torch.finfo(torch.float32).min)
    return mask[None, None]


def run(model: Model, cache: KvCache, rows: list[Row]) -> list[Tensor]:
    """Logits of all tokens of each row, in one step."""
    order = row_order([len(row.tokens) for row in rows], [row.end for row in rows])
    spans: list[Span] = []
    tokens: list[int] = []
    for index in order:
        row = rows[index]
        spans.append(Span(len(tokens), len(row.tokens), row.start, row.page_ids, row.layout))
        tokens += row.tokens
    logits = model.forward(spans, tokens, cache, range(len(tokens)))
    found = {index: logits[span.first : span.first + span.length] for index, span in zip(order, spans, strict=True)}
    return [found[index] for index in range(len(rows))]


def in_chunks(model: Model, cache: KvCache, line: Line, cuts: list[int]) -> Tensor:
    """All logits of `line`; before each chunk, the pages that no token sees from there on are left out."""
    parts = []
    for first, end in zip([0, *cuts], [*cuts, len(line.tokens)], strict=True):
        line.leave_out(first)
        parts += run(model, cache, [line.row(first, end)])
    return torch.cat(parts)


def scattered(seed: int) -> list[int]:
    return random.Random(seed).sample(range(NUM_PAGES), 8)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_token_sees(pair: tuple[Model, torch.nn.Module], seed: int) -> None:
    model, _ = pair
    line = random_line(scattered(seed), LENGTH, seed)
    cuts = sorted(random.Random(seed).sample(range(1, LENGTH), 12)) if seed else list(range(1, LENGTH))
    found = in_chunks(model, model.new_cache(NUM_PAGES, PAGE), line, cuts)
    assert line.dropped, "the test means to leave pages out"
    assert found.sub(expected(pair, line)).abs().max() < 1e-3


def test_in_company(pair: tuple[Model, torch.nn.Module]) -> None:
    """Single tokens and chunks, plain ones and others, in one step."""
    model, _ = pair
    cache = model.new_cache(NUM_PAGES, PAGE)
    lines = [random_line(list(range(8 * i, 8 * i + 6)), 70, seed=10 + i) for i in range(3)]
    plain = [Line(list(range(30, 34))).add(range(7, 47)), Line(list(range(34, 37))).add(range(50, 81))]
    starts = [69, 60, 44, 39, 20]
    every = [*lines, *plain]
    for line, start in zip(every, starts, strict=True):
        run(model, cache, [line.row(0, start)])
        line.leave_out(start)
    rows = [line.row(start, len(line.tokens)) for line, start in zip(lines, starts, strict=False)]
    rows += [line.row(start, len(line.tokens), is_plain=True) for line, start in zip(plain, starts[3:], strict=True)]
    for line, start, found in zip(every, starts, run(model, cache, rows), strict=True):
        assert found.sub(expected(pair, line)[start:]).abs().max() < 1e-3, start


def test_what_is_seen_in_full_is_what_a_plain_row_sees(pair: tuple[Model, torch.nn.Module]) -> None:
    model, _ = pair
    line = Line(scattered(7)).add(range(5, 60))
    cache, other = (model.new_cache(NUM_PAGES, PAGE) for _ in range(2))
    for first, end in ((0, 30), (30, 31), (31, 55)):
        [plain] = run(model, cache, [line.row(first, end, is_plain=True)])
        [found] = run(model, other, [line.row(first, end)])
        assert torch.equal(found, plain) if model.kernels == "compiled" else found.sub(plain).abs().max() < 1e-4


def test_a_page_full_of_nan_behind_the_last_token(pair: tuple[Model, torch.nn.Module]) -> None:
    model, _ = pair
    line = random_line(scattered(3), LENGTH, 3)
    cache = model.new_cache(NUM_PAGES, PAGE)
    cache.keys[:, :-1] = float("nan")
    cache.values[:, :-1] = float("nan")
    found = in_chunks(model, cache, line, [20, 21, 37, 60, 61, 62, 80])
    assert found.sub(expected(pair, line)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("kernels", "dtype"), [("compiled", "bfloat16"), ("compiled", "float32"), ("torch", "float32")]
)
def test_the_same_bits_however_it_is_cut(tmp_path: Path, kernels: Kernels, dtype: str) -> None:
    folder = models.write_checkpoint(tmp_path / "model", "gemma2-even", dtype=dtype)
    model = load_model(Checkpoint.open(folder), getattr(torch, dtype), kernels)
    model = deterministic(model, 1, PAGE) if kernels == "torch" else model
    line = random_line(scattered(5), LENGTH, 5)
    whole = in_chunks(model, model.new_cache(NUM_PAGES, PAGE), line, [])
    for cuts in (list(range(1, LENGTH)), [16, 32, 48, 64, 80], [31, 33, 34, 74], [89]):
        assert torch.equal(in_chunks(model, model.new_cache(NUM_PAGES, PAGE), line, cuts), whole), cuts
