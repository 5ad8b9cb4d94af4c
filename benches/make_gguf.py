"""Write a Llama checkpoint as a GGUF file whose matrices have a type of few bits, or bf16.

    python benches/make_gguf.py CHECKPOINT FILE --type BF16|Q8_0|Q6_K|Q4_K

Rows of a size that 256 does not divide become Q8_0 instead of Q6_K and Q5_0 instead of Q4_K, as llama.cpp's own tool
does it; the embedding has at least the six bits that it gives it. K-quants are rounded to the nearest, without that
tool's search for better scales.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

from pie_engine.errors import Unsupported

TYPES = ("BF16", "Q8_0", "Q6_K", "Q4_K")
BLOCK = 256
"""Numbers in a block of a K-quant."""
_WITHOUT_K = {"Q6_K": "Q8_0", "Q4_K": "Q5_0"}
_EMBEDDING = {"Q4_K": "Q6_K"}
_EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def write_gguf(checkpoint: Path, path: Path, kind: str) -> Path:
    """The Llama in the folder `checkpoint` with matrices of `kind`; returns `path`. Raises `Unsupported` for others."""
    raw = json.loads((checkpoint / "config.json").read_text("utf-8"))
    if raw["model_type"] != "llama" or raw.get("rope_scaling"):
        raise Unsupported(f"{checkpoint} is no Llama with plain rotary embeddings", hint="use llama.cpp's converter")
    writer = gguf.GGUFWriter(path, "llama")
    _add_sizes(writer, raw)
    _add_tokenizer(writer, raw, json.loads((checkpoint / "tokenizer.json").read_text("utf-8")))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, raw["num_hidden_layers"])
    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            numbers = _permuted(tensor.float().numpy(), name, raw)
            stored = names.get_name(name, (".weight",))
            if numbers.ndim == 1:
                writer.add_tensor(stored, numbers)
                continue
            dtype = gguf.GGMLQuantizationType[type_of(name, numbers.shape[1], kind)]
            writer.add_tensor(stored, encoded(numbers, dtype.name), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def type_of(name: str, num_inputs: int, kind: str) -> str:
    """What a matrix becomes in a file of `kind`."""
    chosen = _EMBEDDING.get(kind, kind) if name in _EMBEDDINGS else kind
    return chosen if num_inputs % BLOCK == 0 else _WITHOUT_K.get(chosen, chosen)


def encoded(numbers: np.ndarray, kind: str) -> np.ndarray:
    """fp32 [outputs, inputs] as bytes [outputs, bytes of a row]."""
    if kind in ("Q4_K", "Q6_K"):
        blocks = numbers.reshape(-1, BLOCK)
        return (_q4_k if kind == "Q4_K" else _q6_k)(blocks).reshape(len(numbers), -1)
    return gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    """Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h."""
    groups = blocks.reshape(-1, 16, 16)
    wanted = np.abs(groups).max(2) / 31
    scale = _half(wanted.max(1, keepdims=True) / 127)
    factors = np.rint(_over(wanted, scale)).astype(np.int8)
    quants = np.rint(_over(groups, (scale * factors)[..., None])).clip(-32, 31).astype(np.int8) + 32
    halves = quants.astype(np.uint8).reshape(-1, 2, 4, 32)
    low = halves & 15
    lower = low[:, :, :2] | low[:, :, 2:] << 4
    upper = np.bitwise_or.reduce(halves >> 4 << np.arange(0, 8, 2, dtype=np.uint8)[:, None], axis=2)
    return _joined(lower, upper, factors, scale.astype(np.float16))


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    groups = blocks.reshape(-1, 8, 32)
    lowest = -np.minimum(groups.min(2), 0)
    wanted = (groups.max(2) + lowest) / 15
    scale, least = (_half(table.max(1, keepdims=True) / 63) for table in (wanted, lowest))
    factors, under = (
        np.rint(_over(table, unit)).clip(0, 63).astype(np.uint8) for table, unit in ((wanted, scale), (lowest, least))
    )
    shifted = groups + (least * under)[..., None]
    quants = np.rint(_over(shifted, (scale * factors)[..., None])).clip(0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    first, last = slice(None, 4), slice(4, None)
    tables = [table[:, first] | table[:, last] >> 4 << 6 for table in (factors, under)]
    tables.append(factors[:, last] & 15 | (under[:, last] & 15) << 4)
    packed = quants[:, :, 0] | quants[:, :, 1] << 4
    return _joined(scale.astype(np.float16), least.astype(np.float16), *tables, packed)


def _half(numbers: np.ndarray) -> np.ndarray:
    """Rounded to fp16, as they are stored."""
    return numbers.astype(np.float16).astype(np.float32)


def _over(numbers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """numbers / scale; 0 where the scale is."""
    return np.divide(numbers, scale, out=np.zeros_like(numbers), where=scale != 0)


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8) for part in parts], axis=1)


def _add_sizes(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    heads = raw["num_attention_heads"]
    head_dim = raw.get("head_dim") or raw["hidden_size"] // heads
    writer.add_embedding_length(raw["hidden_size"])
    writer.add_feed_forward_length(raw["intermediate_size"])
    writer.add_block_count(raw["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(raw["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_context_length(raw["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(raw["rms_norm_eps"])
    writer.add_rope_freq_base(raw.get("rope_theta", 10000.0))


def _add_tokenizer(writer: gguf.GGUFWriter, raw: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """A byte-level one; what it has no text for are unused tokens."""
    model, added = tokenizer["model"], {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    texts = {number: text for text, number in model["vocab"].items()} | added
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([texts.get(number, f"<unused {number}>") for number in range(raw["vocab_size"])])
    writer.add_token_types([control if number in added else normal for number in range(raw["vocab_size"])])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(raw["bos_token_id"])
    writer.add_eos_token_id(raw["eos_token_id"])


def _permuted(numbers: np.ndarray, name: str, raw: dict[str, Any]) -> np.ndarray:
    """Rotary pairs side by side: `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    is_query = ".q_proj." in name
    if not is_query and ".k_proj." not in name:
        return numbers
    heads = raw["num_attention_heads" if is_query else "num_key_value_heads"]
    return np.ascontiguousarray(numbers.reshape(heads, 2, -1, numbers.shape[1]).swapaxes(1, 2)).reshape(numbers.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=TYPES, default="Q8_0")
    args = parser.parse_args()
    path = write_gguf(args.checkpoint, args.file, args.type)
    print(f"wrote {args.type} ({path.stat().st_size >> 20} MiB)")


if __name__ == "__main__":
    main()
