"""How torch gives rows the same bits in any company: what is measured, what is done with it, and when it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.decoder import Decoder
from pie_engine.model.layers import Linear
from pie_engine.model.load import load_model
from pie_engine.model.lora.weights import Adapter, LowRank
from pie_engine.model.one_by_one import OneByOne
from pie_engine.model.span import Span
from pie_engine.model.steady import Steady, deterministic, is_steady
from pie_engine.model.steady_products import ONE_BY_ONE, Rows, SteadyLinear, SteadyProducts, noisy_twin, steady_rows
from tests import models

PAGE = 16
ROWS = torch.randn(64, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def other_below(least: int) -> Callable[[Tensor], Tensor]:
    """Fewer rows go another way."""
    return lambda x: x * 2 if len(x) >= least else x * 3


@pytest.mark.parametrize(
    ("product", "rows"),
    [
        (lambda x: x * 2, Rows(1, 64)),
        (other_below(2), Rows(2, 64)),
        (other_below(16), Rows(1, 8)),
        (lambda x: x * (2 if len(x) > 16 else 3), Rows(1, 16)),
        (lambda x: x * (1 if len(x) == 1 else 2 if len(x) < 16 else 3), Rows(2, 8)),
        (lambda x: x * len(x), Rows(8, 8)),
        (lambda x: x * torch.arange(len(x)).unsqueeze(1), ONE_BY_ONE),
    ],
    ids=["any", "two", "few are better than many", "not too many", "two to eight", "one number", "by place"],
)
def test_which_numbers_of_rows_are_multiplied_alike(product: Callable[[Tensor], Tensor], rows: Rows) -> None:
    assert steady_rows(product, ROWS) == rows


class Recorded:
    """A linear that remembers how many rows it was given."""

    shape = (24, 24)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def of(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return x * 2

    def into(self, out: Tensor, x: Tensor) -> None:
        out.copy_(self.of(x))

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        raise AssertionError("products and sums apart")


@pytest.mark.parametrize(("num_rows", "sizes"), [(1, [2]), (2, [2]), (7, [7]), (8, [8]), (9, [8, 2]), (20, [8, 8, 4])])
def test_products_keep_to_these_numbers(num_rows: int, sizes: list[int]) -> None:
    linear, x = Recorded(), ROWS[:num_rows]
    steady = SteadyLinear(linear, Rows(2, 8))
    out, residual = torch.empty(x.shape), x.clone()
    steady.into(out, x)
    steady.add_to(residual, x, 0.5)
    assert torch.equal(out, x * 2)
    assert torch.equal(steady.of(x), x * 2)
    assert torch.equal(residual, x * 2)
    assert linear.sizes == sizes * 3
    assert steady.of(x[:0]).shape == (0, 24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sizes", [(576, 192), (33, 51)])
def test_real_products(dtype: torch.dtype, is_transposed: bool, has_bias: bool, sizes: tuple[int, int]) -> None:
    weight = torch.randn(sizes[::-1]).to(dtype).t() if is_transposed else torch.randn(sizes).to(dtype)
    linear = Linear(weight, torch.randn(sizes[1]).to(dtype) if has_bias else None)
    steady = SteadyProducts().linear(linear)
    x = torch.randn(150, sizes[0]).to(dtype)
    alone = torch.cat([steady.of(row) for row in x.split(1)])
    for num_rows in (2, 3, 16, 40, 64, 65, 150):
        assert torch.equal(torch.cat([steady.of(part) for part in x.split(num_rows)]), alone), num_rows
    assert (alone.float() - (x.double() @ weight.double()).float() - (linear.bias if has_bias else 0)).abs().max() < 1


def test_the_twin_shows_differences_that_bf16_hides() -> None:
    """Its exact products are zero, so that a sum in another order is another result."""
    linear = Linear(torch.randn(96, 40).bfloat16())
    twin = noisy_twin(linear)
    assert (twin.weight.shape, twin.weight.stride()) == (linear.weight.shape, linear.weight.stride())
    x = torch.ones(1, 96)
    sums = (x @ twin.weight.float()).abs().max()
    assert sums > 0.01, "not with these inputs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_checkpoint(tmp_path_factory.mktemp("steady") / "model", "biases")


def test_whole_steps_where_rows_keep_their_bits(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = deterministic(load_model(Checkpoint.open(folder), torch.float32), 1, PAGE)
    assert isinstance(model, Steady)
    assert not caplog.text


@pytest.mark.parametrize("page_size", [4, 8, 24])
def test_pages_of_other_sizes(folder: Path, page_size: int) -> None:
    assert isinstance(deterministic(load_model(Checkpoint.open(folder), torch.float32), 1, page_size), Steady)


def test_as_the_library_likes_it_a_model_is_not_steady(folder: Path) -> None:
    assert not is_steady(Steady(load_model(Checkpoint.open(folder), torch.float32)), PAGE)


def test_one_token_at_a_time_where_a_row_depends_on_others(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(Checkpoint.open(folder), torch.float32)
    assert isinstance(model, Decoder)
    gated = model._gated
    model._gated = lambda gate, up, out=None: gated(gate, up, out).mul_(1 + len(gate) * 1e-6)
    found = deterministic(model, 1, PAGE)
    assert isinstance(found, OneByOne)
    assert "deterministic: LlamaForCausalLM runs one token at a time, which is slow: something in it" in caplog.text
    assert not is_steady(Steady(model), PAGE), "its products are its own again"
    assert is_steady(found, PAGE)


def test_one_token_at_a_time_with_several_threads(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(deterministic(load_model(Checkpoint.open(folder), torch.float32), 2, PAGE), OneByOne)
    assert "2 threads cut rows elsewhere in other steps" in caplog.text


def test_adapters_too(folder: Path) -> None:
    model = deterministic(load_model(Checkpoint.open(folder), torch.float32), 1, PAGE)
    config = model.config
    inner = config.num_heads * config.head_dim
    out = LowRank(0, torch.randn(inner, 5), torch.randn(5, config.hidden_size))
    model.add_adapter(Adapter("a", {(0, "attention_out"): (out,)}))
    tokens = [3 + 7 * index % 290 for index in range(40)]
    spans = [Span(0, 20, 0, [0, 1], adapter="a"), Span(20, 20, 0, [2, 3])]
    together = model.forward(spans, tokens, model.new_cache(4, PAGE), range(40))
    cache = model.new_cache(4, PAGE)
    alone = [
        model.forward([Span(0, 1, index, [0, 1], adapter="a")], [tokens[index]], cache, [0]) for index in range(20)
    ]
    assert torch.equal(together[:20], torch.cat(alone))
    model.remove_adapter("a")


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("by-transformers-gpt2", ""),
        ("by-transformers-cwm", ""),
        ("by-transformers-bloom", "its attention is its own"),
        ("by-transformers-deepseek", "its DeepseekV3Experts multiplies in a way of its own"),
    ],
)
def test_models_of_transformers(tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: str, says: str) -> None:
    loaded = load_model(Checkpoint.open(models.write_checkpoint(tmp_path / "model", shape)), torch.float32)
    model = deterministic(loaded, 1, PAGE)
    assert isinstance(model, OneByOne if says else Steady)
    assert says in caplog.text
    assert model.forward([Span(0, 2, 0, [0])], [5, 6], model.new_cache(1, PAGE), []).shape == (0, 320)


def test_a_model_of_transformers_is_as_it_was_after_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.write_checkpoint(tmp_path / "model", "by-transformers-cwm")
    plain, tried = (load_model(Checkpoint.open(folder), torch.float32) for _ in range(2))
    monkeypatch.setattr("pie_engine.model.steady.is_steady", lambda model, page_size: False)
    assert isinstance(deterministic(tried, 1, PAGE), OneByOne)
    row = [Span(0, 1, 0, [0])], [5]
    logits = [model.forward(*row, model.new_cache(1, PAGE), [0]) for model in (plain, tried)]
    assert (logits[0] - logits[1]).abs().max() < 1e-5
    monkeypatch.undo()
    assert not is_steady(Steady(tried), PAGE)


def test_widths_that_leave_something_over(tmp_path: Path) -> None:
    """Half a register's worth of a row would be somebody else's neighbour in another step."""
    folder = models.write_checkpoint(tmp_path / "model", "starcoder2", intermediate_size=100)
    model = load_model(Checkpoint.open(folder), torch.float32)
    assert isinstance(model, Decoder)
    assert model.steady_obstacle() == "it has activations 100 wide, which is no multiple of 32"
    gated = models.write_checkpoint(tmp_path / "gated", "gqa-tied", intermediate_size=100)
    assert isinstance(deterministic(load_model(Checkpoint.open(gated), torch.float32), 1, PAGE), Steady)
