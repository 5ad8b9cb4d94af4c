"""Write a random checkpoint in Hugging Face format, for benches: the shape counts, the text does not.

    python benches/make_checkpoint.py FOLDER [--shape 135m|7m|tiny] [--seed 0] [--quiet-from LAYER]

`135m` has the shape of SmolLM-135M. The tokenizer is pie-tiny's, with made-up words up to the vocabulary's size, so
that turning tokens into text costs what it costs with a real one. The layers from `--quiet-from` on add next to
nothing, so that a draft model of those before is right nearly always.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from pie_engine.hub.places import PIE_TINY, resolve
from pie_engine.model.config import parse_config
from pie_engine.model.tensors import expected_tensors

SHAPES = {
    "135m": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 4096,
    },
    "7m": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 768,
        "vocab_size": 4096,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 4096,
        "max_position_embeddings": 2048,
    },
}
COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 0,
}
DEVIATION = 0.02
RESIDUAL = ("o_proj", "down_proj")
QUIET = 0.01
"""What a quiet layer adds, of what it would."""


def write_checkpoint(folder: Path, shape: str = "135m", seed: int = 0, quiet_from: int | None = None) -> Path:
    """A random Llama of `SHAPES[shape]`, in bfloat16; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {**COMMON, **SHAPES[shape]}
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    tensors = _random_tensors(raw, seed)
    for name, tensor in tensors.items():
        if quiet_from is not None and is_quiet(name, quiet_from):
            tensors[name] = tensor * QUIET
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(folder, raw["vocab_size"])
    return folder


def is_quiet(name: str, quiet_from: int) -> bool:
    """Whether it is what a layer from `quiet_from` on adds to the residual stream."""
    parts = name.split(".")
    return "layers" in parts and int(parts[parts.index("layers") + 1]) >= quiet_from and parts[-2] in RESIDUAL


def _random_tensors(raw: dict[str, object], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in expected_tensors(parse_config(raw, eos_ids=(0,))).items():
        is_norm = "norm" in name
        values = torch.ones(size) if is_norm else torch.randn(size, generator=generator) * DEVIATION
        tensors[name] = values.to(torch.bfloat16)
    return tensors


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    source = resolve(PIE_TINY)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    taken = {*vocab.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    assert len(taken) <= vocab_size, f"the tokenizer has {len(taken)} tokens already"
    # U+0120 is how byte-level vocabularies write a space.
    vocab.update({f"\u0120w{token_id:x}": token_id for token_id in range(vocab_size) if token_id not in taken})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="135m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet-from", type=int)
    args = parser.parse_args()
    folder = write_checkpoint(args.folder, args.shape, args.seed, args.quiet_from)
    print(f"wrote {args.shape} ({sum(path.stat().st_size for path in folder.iterdir()) >> 20} MiB)")


if __name__ == "__main__":
    main()
