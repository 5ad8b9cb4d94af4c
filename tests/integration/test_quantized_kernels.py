"""Weights of few bits in the compiled kernels: exactly the numbers that they stand for, the same bits in any batch."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor

from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.compiled import CompiledDecoder
from pie_engine.model.compiled_weights import PackedMixture
from pie_engine.model.decoder import Decoder
from pie_engine.model.embedding import Embedding
from pie_engine.model.kernels.blocks import BLOCKS, SPAN
from pie_engine.model.kernels.packed import PackedLinear
from pie_engine.model.kernels.program import Program
from pie_engine.model.kernels.team import Team
from pie_engine.model.layers import Linear
from pie_engine.model.quantization import HEAD_KIND, quantized_bytes
from pie_engine.model.quantized import QuantizedLinear, quantized
from pie_engine.model.quants import Quants
from pie_engine.model.span import Span
from tests import models

NUM_OUTPUTS = 80
"""Two panels and a half."""
ROWS = (1, 2, 3, 7, 8, 12, 13, 16, 40, 110)
"""Tiles of every size, and parts that are turned into fp32 first."""
PROMPT = [5, 9, 200, 31, 7, 77, 150, 3, 260, 18, 44, 90, 12, 13, 14, 15, 16, 17]


def random_quants(kind: str, num_inputs: int, num_outputs: int = NUM_OUTPUTS) -> Quants:
    blocks, generator = BLOCKS[kind], torch.Generator().manual_seed(num_inputs)

    def integers(low: int, high: int, columns: int) -> Tensor:
        dtype = torch.uint8 if low == 0 else torch.int8
        return torch.randint(low, high, (num_outputs, columns), generator=generator, dtype=dtype)

    def table() -> Tensor:
        numbers = torch.randn(num_outputs, -(-num_inputs // blocks.inputs), generator=generator) / 100
        return numbers.to(getattr(torch, blocks.scale))

    num_groups = num_inputs // blocks.group_inputs if blocks.has_factors else 0
    return Quants(
        kind,
        integers(0, 16, num_inputs) if blocks.bits == 4 else integers(-127, 128, num_inputs),
        table(),
        table() if blocks.has_lowest else None,
        integers(0 if blocks.has_lowest else -32, 64, num_groups) if num_groups else None,
        integers(0, 64, num_groups) if num_groups and blocks.has_lowest else None,
    )


def product(linear: PackedLinear, x: Tensor, y: Tensor | None = None, num_threads: int = 1) -> Tensor:
    """x W + b, added to `y` if there is one."""
    out = torch.empty(len(x), linear.padded_outputs) if y is None else y
    steps, team = Program(num_threads), Team(num_threads, "bfloat16")
    (linear.into if y is None else linear.add_to)(steps, x, out)
    steps.seal()
    steps.set_num_rows(len(x))
    team.run(steps)
    team.close()
    return out[:, : linear.num_outputs]


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_kind_is_multiplied_as_the_numbers_that_it_stands_for(kind: str) -> None:
    num_inputs = 2 * SPAN + (72 if kind == "int8" else 32 if BLOCKS[kind].inputs == 32 else 0)
    assert BLOCKS[kind].takes(num_inputs)
    quants, bias = random_quants(kind, num_inputs), torch.arange(NUM_OUTPUTS) / 8
    numbers = quants.numbers()
    linear = PackedLinear.of_quants(quants, bias)
    # Times ones and zeros, in tiles and by way of fp32. Of int4 middle and offset are added first, and rounded.
    tolerance = 1e-6 if kind == "int4" else 0.0
    ids, found = numpy.array([0, 79, 33]), torch.full((3, num_inputs + 8), 7.0)
    Embedding(linear, 2.0).into(ids, found.numpy()[:, :num_inputs])
    torch.testing.assert_close(found[:, :num_inputs], 2 * numbers[ids], atol=2 * tolerance, rtol=0)
    assert (found[:, num_inputs:] == 7).all()
    one = torch.eye(num_inputs)
    for rows in (one, one[5:9]):
        found = product(PackedLinear.of_quants(quants), rows.contiguous())
        torch.testing.assert_close(found, rows @ numbers.t(), atol=tolerance, rtol=0)
    x = torch.randn(max(ROWS), num_inputs, generator=torch.Generator().manual_seed(1))
    whole = product(linear, x)
    expected = x.double() @ numbers.double().t() + bias.double()
    assert (whole - expected).abs().max() < 2e-6 * expected.abs().max()
    for count in ROWS:
        assert torch.equal(product(linear, x[:count].contiguous(), num_threads=1 + count % 3), whole[:count]), count
    added = product(linear, x[:3].contiguous(), torch.ones(3, linear.padded_outputs))
    torch.testing.assert_close(added, 1 + whole[:3], atol=4e-6 * float(expected.abs().max()), rtol=0)


@pytest.fixture(params=["int8", "int4"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["qwen2", "qwen3-moe"], scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """With biases; with experts beside a dense layer."""
    folder = tmp_path_factory.mktemp("kernels") / "model"
    return Checkpoint.open(models.write_checkpoint(folder, request.param, gain=1.0))


def test_routers_stay_as_they_are(checkpoint: Checkpoint) -> None:
    """And what the others take is what is said of them."""
    model = CompiledDecoder(checkpoint, torch.bfloat16, quantize="int8")
    for block in model._blocks:
        if isinstance(block.mlp, PackedMixture):
            assert (block.mlp.router.kind, block.mlp.down.kind) == ("bfloat16", "int8")
    said = checkpoint.weight_bytes("bfloat16") - checkpoint.weight_bytes("bfloat16", "int8")
    matrices = [
        info.shape
        for name, info in checkpoint.tensors.items()
        if ".layers." in name and len(info.shape) == 2 and not name.endswith("mlp.gate.weight")
    ]
    assert said == sum(2 * rows * columns - quantized_bytes("int8", columns, rows) for rows, columns in matrices)


def test_a_model_has_the_logits_of_its_quantized_numbers(
    kind: str, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantizedLinear, "packed_by_torch", lambda linear: linear)
    exact = Decoder(checkpoint, torch.float32, kind)  # type: ignore[arg-type]
    assert isinstance(exact._head, Linear)
    head = quantized(HEAD_KIND, exact._head.weight.t()).numbers()
    exact._head = Linear(head.t())
    if checkpoint.config.tie_embeddings:
        exact._embedding = head
    span, every = Span(0, len(PROMPT), 0, [1, 0]), list(range(len(PROMPT)))
    logits = []
    for model in (CompiledDecoder(checkpoint, torch.float32, quantize=kind), exact):  # type: ignore[arg-type]
        logits.append(model.forward([span], PROMPT, model.new_cache(2, 16), every))
    torch.testing.assert_close(*logits, atol=1e-3, rtol=0)


def test_a_model_gives_the_same_bits_in_any_chunk_and_company(kind: str, checkpoint: Checkpoint) -> None:
    model = CompiledDecoder(checkpoint, torch.bfloat16, quantize=kind)  # type: ignore[arg-type]
    cache = model.new_cache(8, 16)
    whole = model.forward([Span(0, 18, 0, [0, 1])], PROMPT, cache, range(18))
    for num_threads in (1, 2):
        model.set_num_threads(num_threads)
        one = [model.forward([Span(0, 1, at, [2, 3])], [PROMPT[at]], cache, [0]) for at in range(18)]
        assert torch.equal(torch.cat(one), whole)
        cache.copy_pages([(3, 6), (3, 7)])
        spans = [Span(0, 18, 0, [4, 5]), *(Span(18 + row, 1, 17, [2, page]) for row, page in enumerate((3, 6, 7)))]
        beside = model.forward(spans, PROMPT + [PROMPT[17]] * 3, cache, range(21))
        assert torch.equal(beside, torch.cat([whole, whole[[17] * 3]]))


def test_the_head_has_eight_bits(kind: str, checkpoint: Checkpoint) -> None:
    model = CompiledDecoder(checkpoint, torch.bfloat16, quantize=kind)  # type: ignore[arg-type]
    assert model._head.kind == "int8"
    numbers = checkpoint.config.vocab_size * checkpoint.config.hidden_size
    compiled, torchs = (checkpoint.weight_bytes("bfloat16", kind, kernels=kernels) for kernels in ("compiled", "torch"))  # type: ignore[arg-type]
    assert torchs - compiled == numbers - 2 * checkpoint.config.vocab_size
    assert checkpoint.weight_kinds("bfloat16", kind, kernels="compiled") == sorted({"bfloat16", "int8", kind})  # type: ignore[arg-type]


def test_what_the_packed_weights_take() -> None:
    for kind in ("int8", "int4"):
        quants = random_quants(kind, 512, 96)
        packed, said = PackedLinear.of_quants(quants).panels.nbytes, quantized_bytes(kind, 512, 96)  # type: ignore[arg-type]
        assert said <= packed <= 1.01 * said
