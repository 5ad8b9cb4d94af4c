"""LoRA adapters give the same numbers as PEFT, on random checkpoints and adapters of every kind of family."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import Tensor

from pie_engine.config import Paths
from pie_engine.hub.places import resolve
from pie_engine.model.base import Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels, ModelConfig
from pie_engine.model.load import load_model
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.lora.weights import read_adapter
from pie_engine.model.quantization import Quantization
from pie_engine.model.quantized import quantized
from pie_engine.model.span import Span, row_order
from tests import adapters, models
from tests.gguf_files import write_gguf

BOUND = 1e-3
PAGE = 16
KERNELS: tuple[Kernels, ...] = ("torch", "compiled")
NUM_STEPS = 24
SETTINGS = {
    "plain": {},
    "patterns": {
        "r": 5,
        "rank_pattern": {r"q\w*_proj": 3, r"layers\.1\.self_attn\.o_proj": 7},
        "alpha_pattern": {"o_proj": 2.5},
        "use_rslora": True,
        "layers_to_transform": [0, 1],
    },
}
"""Two adapters of each model: what they target is added."""
FAMILIES = ["gqa-tied", "qwen3-even", "gemma3", "phi3", "mixtral"]
MORE = [
    "biases",
    "qwen2",
    "gemma2-even",
    "olmo2",
    "smollm3",
    "granite",
    "phi3-longrope",
    "gpt-oss",
    "phi",
    "starcoder2",
    "gpt-neox",
]


@dataclass
class Trio:
    """A checkpoint in both engines, with adapters."""

    folder: Path
    shape: str
    kernels: str

    @cached_property
    def adapters(self) -> dict[str, Path]:
        targets = adapters.targets_of(self.shape)
        return {
            name: adapters.write_adapter(
                self.folder / name, self.folder, seed=seed, **{"target_modules": targets, **settings}
            )
            for seed, (name, settings) in enumerate(SETTINGS.items())
        }

    @cached_property
    def theirs(self) -> peft.PeftModel:
        base = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        (first, path), *others = self.adapters.items()
        model = peft.PeftModel.from_pretrained(base, path, adapter_name=first)
        for name, path in others:
            model.load_adapter(path, adapter_name=name)
        return model.eval()

    @cached_property
    def files(self) -> dict[str, AdapterFiles]:
        return {name: AdapterFiles.open(path) for name, path in self.adapters.items()}

    @cached_property
    def ours(self) -> Model:
        checkpoint = Checkpoint.open(self.folder)
        model = load_model(checkpoint, torch.float32, self.kernels)
        for files in self.files.values():
            model.add_adapter(read_adapter(files, checkpoint.config, model.dtype))
        return model

    @torch.inference_mode()
    def reference(self, tokens: list[int], adapter: str) -> Tensor:
        """Their logits at every position."""
        if not adapter:
            with self.theirs.disable_adapter():
                return self.theirs(torch.tensor([tokens])).logits[0]
        self.theirs.set_adapter(adapter)
        return self.theirs(torch.tensor([tokens])).logits[0]

    def run(self, cache: object, *rows: tuple[list[int], int, list[int], str]) -> list[Tensor]:
        """Ours at every position of each of `rows`: tokens, position of the first, pages, adapter."""
        order = row_order([len(row[0]) for row in rows], [row[1] + len(row[0]) for row in rows])
        spans: list[Span] = []
        tokens: list[int] = []
        for index in order:
            ids, start, pages, name = rows[index]
            adapter = self.files[name].adapter_id if name else ""
            spans.append(Span(len(tokens), len(ids), start, pages, adapter=adapter))
            tokens += ids
        logits = self.ours.forward(spans, tokens, cache, range(len(tokens)))
        found: dict[int, Tensor] = {
            index: logits[span.first : span.first + span.length] for index, span in zip(order, spans, strict=True)
        }
        return [found[index] for index in range(len(rows))]


def slow(names: Sequence[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def both_ways(shapes: Sequence[str]) -> list[str]:
    return [*shapes, *(f"{shape} compiled" for shape in shapes)]


@pytest.fixture(scope="module")
def trios(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trio]:
    root = tmp_path_factory.mktemp("lora")

    @functools.cache
    def trio_of(name: str) -> Trio:
        shape, _, kernels = name.partition(" ")
        folder = root / shape
        if not folder.exists():
            models.write_checkpoint(folder, shape)
        return Trio(folder, shape, kernels or "torch")

    return trio_of


@pytest.fixture(params=[*both_ways(FAMILIES), *slow(both_ways(MORE))])
def trio(request: pytest.FixtureRequest, trios: Callable[[str], Trio]) -> Trio:
    return trios(request.param)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 320, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def pages(number: int) -> list[int]:
    return list(range(8 * number, 8 * number + 8))


def test_each_row_of_a_mixed_batch_has_its_adapter(trio: Trio) -> None:
    """Prefilled in chunks together, then decoded together."""
    names = ["plain", "", "patterns", "plain"]
    prompts = [prompt_of(length, seed) for seed, length in enumerate((23, 9, 17, 30))]
    cache = trio.ours.new_cache(40, PAGE)
    for start, end in ((0, 5), (5, 40)):
        rows = [
            (prompt[start:end], start, pages(index), name)
            for index, (prompt, name) in enumerate(zip(prompts, names, strict=True))
        ]
        got = trio.run(cache, *rows)
        for (_, _, _, name), prompt, logits in zip(rows, prompts, got, strict=True):
            wanted = trio.reference(prompt, name)[start:end]
            assert (logits - wanted).abs().max() <= BOUND, name
    tokens = [[int(logits[-1].argmax())] for logits in got]
    for _ in range(NUM_STEPS):
        rows = [
            ([ids[-1]], len(prompt) + len(ids) - 1, pages(index), name)
            for index, (prompt, ids, name) in enumerate(zip(prompts, tokens, names, strict=True))
        ]
        for ids, logits in zip(tokens, trio.run(cache, *rows), strict=True):
            ids.append(int(logits[-1].argmax()))
    for name, prompt, ids in zip(names, prompts, tokens, strict=True):
        wanted = trio.reference([*prompt, *ids], name)[len(prompt) - 1 : -1].argmax(-1)
        assert ids == wanted.tolist(), name


def test_adapters_change_what_the_model_says(trio: Trio) -> None:
    prompt = prompt_of(12)
    cache = trio.ours.new_cache(40, PAGE)
    said = trio.run(cache, *((prompt, 0, pages(index), name) for index, name in enumerate(("", *SETTINGS))))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (said[one][-1] - said[other][-1]).abs().max() > 0.1


def test_an_adapter_is_what_merging_it_makes_of_the_model(trios: Callable[[str], Trio], tmp_path: Path) -> None:
    trio = trios("gqa-tied")
    base = transformers.AutoModelForCausalLM.from_pretrained(trio.folder, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, trio.adapters["patterns"]).merge_and_unload()
    merged.save_pretrained(tmp_path)
    model = load_model(Checkpoint.open(tmp_path), torch.float32)
    prompt = prompt_of(20)
    cache = model.new_cache(8, PAGE)
    wanted = model.forward([Span(0, 20, 0, pages(0))], prompt, cache, range(20))
    [got] = trio.run(trio.ours.new_cache(8, PAGE), (prompt, 0, pages(0), "patterns"))
    assert (got - wanted).abs().max() <= BOUND


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r".*\.layers\.[02]\.self_attn\.(q|v)_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["v_proj", "down_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["layers.0.self_attn.k_proj"]},
    ],
    ids=["regex", "all-linear", "layers", "exclude"],
)
def test_targets_are_read_as_peft_reads_them(
    trios: Callable[[str], Trio], tmp_path: Path, settings: dict[str, object]
) -> None:
    trio = trios("gqa-tied")
    folder = adapters.write_adapter(tmp_path, trio.folder, seed=3, **settings)
    files = AdapterFiles.open(folder)
    trio.ours.add_adapter(read_adapter(files, trio.ours.config, trio.ours.dtype))
    base = transformers.AutoModelForCausalLM.from_pretrained(trio.folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, folder).eval()
    prompt = prompt_of(20)
    with torch.inference_mode():
        wanted = theirs(torch.tensor([prompt])).logits[0]
    span = Span(0, 20, 0, pages(0), adapter=files.adapter_id)
    got = trio.ours.forward([span], prompt, trio.ours.new_cache(8, PAGE), range(20))
    trio.ours.remove_adapter(files.adapter_id)
    assert (got - wanted).abs().max() <= BOUND


def close_to_peft(model: Model, config: ModelConfig, base: torch.nn.Module, adapter: Path) -> None:
    """Of a row with the adapter and one without, in one batch."""
    files, prompt = AdapterFiles.open(adapter), prompt_of(20)
    model.add_adapter(read_adapter(files, config, model.dtype))
    theirs = peft.PeftModel.from_pretrained(base, adapter).eval()
    spans = [Span(0, 20, 0, pages(0), adapter=files.adapter_id), Span(20, 20, 0, pages(1))]
    got = model.forward(spans, prompt * 2, model.new_cache(16, PAGE), range(40))
    with torch.inference_mode():
        adapted = theirs(torch.tensor([prompt])).logits[0]
        with theirs.disable_adapter():
            plain = theirs(torch.tensor([prompt])).logits[0]
    assert (adapted - plain).abs().max() > 0.1
    assert (got - torch.cat([adapted, plain])).abs().max() <= BOUND


@pytest.mark.parametrize(
    ("shape", "kind", "others"),
    [
        ("gqa-tied", "Q4_K", {"v_proj": "Q6_K", "up_proj": "F16"}),
        pytest.param("qwen2", "Q8_0", {"k_proj": "Q5_0", "gate_proj": "Q4_0"}, marks=pytest.mark.slow),
        pytest.param("mixtral", "Q4_K", {"w2": "Q6_K", "v_proj": "Q8_0"}, marks=pytest.mark.slow),
    ],
)
def test_over_weights_of_a_gguf_file(shape: str, kind: str, others: dict[str, str], tmp_path: Path) -> None:
    """The file holds heads in another order than PEFT knows, and matrices of several kinds side by side."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "head_dim": 32}
    hf = models.write_checkpoint(tmp_path / "hf", shape, num_attention_heads=8, **sizes)
    file = write_gguf(tmp_path / "model.gguf", hf, kind, others)
    checkpoint = Checkpoint.open(resolve(str(file), Paths(tmp_path / "home", tmp_path / "cache")))
    adapter = adapters.write_adapter(tmp_path / "adapter", hf, target_modules=adapters.targets_of(shape))
    for kernels in KERNELS:
        base = transformers.AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
        close_to_peft(load_model(checkpoint, torch.float32, kernels), checkpoint.config, base, adapter)


@pytest.mark.parametrize("kind", ["int4", *slow(["int8"])])
def test_over_weights_that_are_quantized_on_load(kind: Quantization, tmp_path: Path) -> None:
    folder = models.write_checkpoint(tmp_path / "model", "qwen2", hidden_size=64, intermediate_size=128)
    adapter = adapters.write_adapter(tmp_path / "adapter", folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base.lm_head.weight.data = quantized("int8", base.lm_head.weight.data).numbers()  # always of 8 bits
    for linear in base.model.layers.modules():
        if isinstance(linear, torch.nn.Linear):
            linear.weight.data = quantized(kind, linear.weight.data).numbers()
    checkpoint = Checkpoint.open(folder)
    close_to_peft(load_model(checkpoint, torch.float32, "compiled", kind), checkpoint.config, base, adapter)
