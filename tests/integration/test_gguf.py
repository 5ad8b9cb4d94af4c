"""GGUF files: the same model as the checkpoint that they were made of, and clear errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM

from pie_engine.config import Paths
from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.driver.tryout import try_out
from pie_engine.errors import ModelError, PieError, Unsupported
from pie_engine.hub.facts import read_facts
from pie_engine.hub.places import resolve
from pie_engine.model.chat import ChatTemplate
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.compiled import CompiledDecoder
from pie_engine.model.description import Kernels
from pie_engine.model.gguf_file.blocks import quants_of
from pie_engine.model.gguf_file.index import KEPT
from pie_engine.model.load import load_model
from pie_engine.model.span import Span
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.sampling import GREEDY
from tests import models
from tests.gguf_files import write_gguf

PROMPT = [5, 9, 200, 31, 7, 77, 150, 3, 260, 18, 44, 90]
K_SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
"""K-quants have blocks of 256."""
QUICK = ("gqa-tied", "llama3-rope", "qwen2", "gemma3", "phi3", "mixtral", "cohere")
MORE = ("linear-rope", "yarn-rope", "wide-heads", "qwen3", "olmo2", "granite", "qwen3-moe", "olmoe", "gemma", "gemma2",
        "olmo3", "smollm3", "cohere2", "starcoder2", "stablelm", "stablelm-parallel", "phi", "ernie4.5")  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {"tie_word_embeddings": True, "query_pre_attn_scalar": 24},
    "gemma3": {"tie_word_embeddings": True, "sliding_window_pattern": 6, "query_pre_attn_scalar": 16},
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {
        "tie_word_embeddings": True,
        "num_hidden_layers": 4,
        "layer_types": [*["sliding_attention"] * 3, "full_attention"],
    },
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    "qwen3-moe": {"mlp_only_layers": []},
}
"""To shapes that GGUF has no fields for."""


def unpacked(path: Path) -> Path:
    return resolve(str(path), Paths(path.parent / "home", path.parent / "cache"))


def written(
    folder: Path, shape: str, kind: str, others: dict[str, str] | None = None, **changes: Any
) -> tuple[Path, Path]:
    """The GGUF file's folder, and the Transformers checkpoint with the same numbers."""
    hf = models.write_checkpoint(folder / "hf", shape, **changes)
    return unpacked(write_gguf(folder / "model.gguf", hf, kind, others)), hf


def logits_of(folder: Path, kernels: Kernels = "torch") -> torch.Tensor:
    model = load_model(Checkpoint.open(folder), torch.float32, kernels)
    cache = model.new_cache(num_pages=2, page_size=16)
    return model.forward([Span(0, len(PROMPT), 0, [0, 1])], PROMPT, cache, list(range(len(PROMPT))))


def expected_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0]


@pytest.mark.parametrize("shape", [*QUICK, *(pytest.param(shape, marks=pytest.mark.slow) for shape in MORE)])
def test_a_family_from_a_gguf_file_gives_the_logits_of_its_checkpoint(shape: str, tmp_path: Path) -> None:
    folder, hf = written(tmp_path, shape, "F32", **CHANGES.get(shape, {}))
    torch.testing.assert_close(logits_of(folder), expected_logits(hf), atol=1e-3, rtol=0)


def test_f32_numbers_are_the_checkpoints_own(tmp_path: Path) -> None:
    folder, hf = written(tmp_path, "gqa-tied", "F32")
    assert torch.equal(logits_of(folder), logits_of(hf))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_K", "Q6_K", "Q5_K"])
def test_types_are_the_numbers_that_they_stand_for(kind: str, tmp_path: Path) -> None:
    folder, hf = written(tmp_path, "gqa-tied", kind, **(K_SIZES if kind.endswith("K") else {}))
    assert torch.equal(logits_of(folder), logits_of(hf))
    assert Checkpoint.open(folder).tensors["model.layers.0.mlp.down_proj.weight"].dtype == kind


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_kept_in_few_bits_stands_for_exactly_those_numbers(kind: str) -> None:
    kind_id = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[kind_id]
    raw = numpy.random.default_rng(1).integers(0, 256, (6, 3, size), dtype=numpy.uint8)
    scales = {"Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,)}.get(kind, (0, 2))
    for at in scales:  # random bytes may be NaN
        raw[..., at : at + 2] = numpy.float16([0.013, -2e-6, 3.7]).view(numpy.uint8).reshape(3, 2)
    numbers = gguf.quants.dequantize(raw.reshape(6, -1), kind_id)
    quants = quants_of(kind, torch.from_numpy(raw))
    assert torch.equal(quants.numbers(), torch.from_numpy(numbers).view(6, 3 * block))
    assert quants.kind == KEPT[kind]


def test_what_a_file_lacks(tmp_path: Path) -> None:
    hf = models.write_checkpoint(tmp_path / "hf", "mixtral")
    folder = unpacked(write_gguf(tmp_path / "model.gguf", hf, skip="blk.2.attn_norm.weight"))
    with pytest.raises(ModelError, match=r"model\.gguf lacks tensor model\.layers\.2\.input_layernorm\.weight$"):
        Checkpoint.open(folder)
    config = hf / "config.json"
    config.write_text(config.read_text().replace('"num_local_experts": 4', '"num_local_experts": 5'))
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate_exps\.weight has 4 experts, the metadata say 5"):
        unpacked(write_gguf(tmp_path / "more.gguf", hf))


@pytest.mark.parametrize(
    ("shape", "kind", "others"),
    [
        ("mixtral", "Q4_K", {"w2": "Q6_K", "w1": "Q8_0", "v_proj": "Q8_0"}),
        ("gqa-tied", "Q4_K", {"v_proj": "Q6_K", "embed_tokens": "Q6_K", "down_proj": "Q5_K", "up_proj": "F16"}),
        ("qwen2", "Q8_0", {"k_proj": "Q5_0", "gate_proj": "Q4_0", "o_proj": "Q4_1"}),
    ],
)
def test_the_compiled_kernels_keep_what_the_file_has(
    shape: str, kind: str, others: dict[str, str], tmp_path: Path
) -> None:
    sizes = K_SIZES | {"head_dim": 32, "num_attention_heads": 8}
    folder, hf = written(tmp_path, shape, kind, others, **sizes)
    torch.testing.assert_close(logits_of(folder, "compiled"), logits_of(folder), atol=1e-3, rtol=0)
    checkpoint = Checkpoint.open(folder)
    kinds = {KEPT[name] for name in (kind, *others.values()) if name in KEPT} | {"float32"}
    assert checkpoint.weight_kinds("float32", kernels="compiled") == sorted(
        kinds if shape == "gqa-tied" else kinds - {"float32"}
    )
    # The file has each bit once; the kernels' layout adds little to it, but for Q5 and Q6, which become bytes.
    kept = checkpoint.weight_bytes("bfloat16", kernels="compiled")
    assert kept < 0.75 * checkpoint.weight_bytes("bfloat16")
    anew = Checkpoint.open(hf).weight_bytes("bfloat16", "int8", kernels="compiled")
    assert checkpoint.weight_bytes("bfloat16", "int8", kernels="compiled") == anew
    driver = CpuDriver.load(folder, dtype="float32", num_threads=1)
    assert driver.capabilities.kernels == "compiled"
    assert driver.capabilities.weight_bytes == checkpoint.weight_bytes("float32", kernels="compiled")
    memory = read_facts(folder).memory
    assert memory is not None
    assert memory.weights["bfloat16"] == kept


def test_what_the_kept_weights_take(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, "gqa-tied", "Q4_K", **K_SIZES, head_dim=32, num_attention_heads=8)
    checkpoint = Checkpoint.open(folder)
    model = CompiledDecoder(checkpoint, torch.float32)
    step = model._step_for(1, 1, model.new_cache(1, 16))._program
    held = {tensor.data_ptr(): tensor.nbytes for tensor in step._kept if tensor.dtype == torch.uint8}
    in_layers = sum(held.values()) + model._head.panels.nbytes
    norms = checkpoint.num_parameters - sum(
        math.prod(info.shape) for info in checkpoint.tensors.values() if len(info.shape) == 2
    )
    said = checkpoint.weight_bytes("float32", kernels="compiled") - 4 * norms
    assert said <= in_layers <= 1.02 * said


def test_heads_that_no_vector_divides_are_turned_into_numbers(tmp_path: Path) -> None:
    folder, hf = written(tmp_path, "wide-heads", "Q8_0")
    assert Checkpoint.open(folder).weight_kinds("float32", kernels="compiled") == ["float32"]
    torch.testing.assert_close(logits_of(folder, "compiled"), logits_of(hf), atol=1e-3, rtol=0)


def test_q8_is_near_the_checkpoint_that_it_was_made_of(tmp_path: Path) -> None:
    original = logits_of(models.write_checkpoint(tmp_path / "original", "gqa-tied"))
    folder, _ = written(tmp_path, "gqa-tied", "Q8_0")
    error = (logits_of(folder) - original).square().mean().sqrt()
    assert 0 < error < 0.1 * original.std()


def test_the_driver_runs_it(tmp_path: Path) -> None:
    folder, hf = written(tmp_path, "gqa-tied", "Q8_0")
    tokens = []
    for path in (folder, hf):
        driver = CpuDriver.load(path, dtype="float32", num_threads=1)
        driver.allocate_kv(2)
        tokens.append(driver.execute([Row(PROMPT, 0, [0, 1], GREEDY)])[0].token)
    assert tokens[0] == tokens[1]


class TestTokenizers:
    def round_trip(self, folder: Path, library: tokenizers.Tokenizer) -> None:
        ours = Tokenizer.load(folder)
        for text in [*models.TEXTS, "Hello 1234 world's  end\n\n x", "<s>hi</s>", "Straße 東京 🙂"]:
            ids = library.encode(text, add_special_tokens=False).ids
            assert ours.encode(text) == ids
            assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)
        assert (ours.bos_token, ours.eos_token, ours.eos_ids) == ("<s>", "</s>", (2,))

    def test_byte_level(self, tmp_path: Path) -> None:
        library = models.byte_level_tokenizer()
        fields = fields_of(library) | {"model": "gpt2", "chat_template": "{{ bos_token }}{{ messages[0].content }}"}
        hf = models.write_checkpoint(tmp_path / "hf")
        folder = unpacked(write_gguf(tmp_path / "model.gguf", hf, **fields))
        self.round_trip(folder, library)
        assert ChatTemplate.load(folder).render([{"role": "user", "content": "hi"}]) == "<s>hi"
        assert try_out(folder, "hello", 3, dtype="float32")["num_tokens"] == 3

    @pytest.mark.parametrize(("pre", "digits"), [("llama-bpe", ["123", "45"]), ("qwen2", ["1", "2", "3", "4", "5"])])
    def test_how_words_are_cut(self, pre: str, digits: list[str], tmp_path: Path) -> None:
        hf, fields = models.write_checkpoint(tmp_path / "hf"), fields_of(models.byte_level_tokenizer())
        folder = unpacked(write_gguf(tmp_path / "model.gguf", hf, **fields, pre=pre))
        raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        cut = [text for text, _ in raw.pre_tokenizer.pre_tokenize_str("it's 12345\n\n x")]
        assert cut == ["it", "'s", "Ġ", *digits, "ĊĊ", "Ġx"]

    def test_sentencepiece(self, tmp_path: Path) -> None:
        library = models.metaspace_tokenizer()
        vocab = sorted(library.get_vocab().items(), key=lambda item: item[1])
        types = [2, 3, 3, *[6] * 256, *[1] * (len(vocab) - 259)]
        scores = [0.0] * (len(vocab) - 3) + [-1.0, -2.0, -3.0]
        fields = {"tokens": [text for text, _ in vocab], "types": types, "scores": scores, "model": "llama"}
        hf = models.write_checkpoint(tmp_path / "hf")
        folder = unpacked(write_gguf(tmp_path / "model.gguf", hf, **fields, pre="default"))
        self.round_trip(folder, library)


def fields_of(library: tokenizers.Tokenizer) -> dict[str, Any]:
    raw = json.loads(library.to_str())
    vocab = sorted(library.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    special = {token["id"] for token in raw["added_tokens"]}
    tokens = [text for text, _ in vocab]
    types = [gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL for index in range(len(tokens))]
    merges = [" ".join(merge) for merge in raw["model"]["merges"]]
    return {"tokens": tokens, "types": types, "merges": merges}


class TestPlaces:
    def test_a_folder_with_one_file_a_name_and_a_changed_file(self, tmp_path: Path) -> None:
        hf = models.write_checkpoint(tmp_path / "hf")
        (tmp_path / "only").mkdir()
        file = write_gguf(tmp_path / "only" / "a.gguf", hf)
        paths = Paths(tmp_path / "home", tmp_path / "cache")
        folder = resolve(str(file), paths)
        assert resolve(str(file.parent), paths) == folder
        assert json.loads((folder / "gguf.json").read_text())["file"] == str(file)
        made = (folder / "gguf.json").stat().st_mtime_ns
        assert (resolve(str(file), paths) / "gguf.json").stat().st_mtime_ns == made
        file.write_bytes(file.read_bytes() + b"\0")
        with pytest.raises(ModelError, match="is gone or has changed"):
            Checkpoint.open(folder)
        assert resolve(str(file), paths) != folder
        write_gguf(tmp_path / "only" / "b.gguf", hf)
        with pytest.raises(ModelError, match="holds 2 GGUF files") as refused:
            resolve(str(file.parent), paths)
        assert str(file) in refused.value.hint

    @pytest.mark.parametrize(
        ("changes", "error", "says"),
        [
            ({"architecture": "mamba"}, Unsupported, "GGUF architecture `mamba` is not supported"),
            ({"pre": "viking"}, Unsupported, "cuts words as `viking` does"),
            ({"model": "bert"}, Unsupported, "tokenizer `bert` is not supported"),
            ({"shape": "olmo2", "add_expert_count": 8}, Unsupported, "`olmo2` with experts are not supported"),
            ({"more": "blk.0.attn_q_norm.weight"}, Unsupported, "blk.0.attn_q_norm.weight is not one that `llama` has"),
            ({"cut": 100}, ModelError, "is damaged or cut off"),
            ({"cut": 3}, ModelError, "is not a GGUF file"),
        ],
    )
    def test_what_cannot_be_loaded(
        self, changes: dict[str, Any], error: type[PieError], says: str, tmp_path: Path
    ) -> None:
        hf = models.write_checkpoint(tmp_path / "hf", changes.pop("shape", "gqa-tied"))
        cut, architecture = changes.pop("cut", None), changes.pop("architecture", None)
        path = write_gguf(tmp_path / "model.gguf", hf, **changes)
        data = path.read_bytes()
        if architecture:
            key = b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0"
            data = data.replace(key + b"llama", key + architecture.encode())
        path.write_bytes(data[: -cut if cut == 100 else cut])
        with pytest.raises(error, match=says):
            unpacked(path)
