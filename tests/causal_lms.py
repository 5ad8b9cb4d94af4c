"""Every causal language model of the installed Transformers, as a tiny random checkpoint, and how Pie takes it.

`python -m tests.causal_lms` writes the table in docs/models.md.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pie_engine.errors import Unsupported
from pie_engine.model.base import Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.families import FAMILIES
from pie_engine.model.load import load_model
from pie_engine.model.span import Span
from pie_engine.model.transformers_own import OwnAttentionModel
from tests.models import randomize

DOCS = Path(__file__).parent.parent / "docs" / "models.md"
NEED_MORE = [
    "blt",
    "dots3_note",
    "dots3_note_text",
    "emu3",
    "fuyu",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4_assistant",
    "gemma4_unified",
    "gemma4_unified_assistant",
    "git",
    "got_ocr2",
    "llama4",
    "mllama",
    "moss_transcribe_diarize",
    "musicgen",
    "musicgen_melody",
    "phi4_multimodal",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen4_exp",
    "reformer",
]
"""Models of more than text, and those that take a configuration of their own to be small."""
WALKED = {
    str(names if isinstance(names, str) else names[0]): kind
    for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    if kind not in NEED_MORE
}
"""Model type of each architecture."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 320),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_dim", "embedding_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "n_inner"), 96
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_experts_per_tok", "moe_k", "n_group"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("topk_group", "first_k_dense_replace", "n_shared_experts", "encoder_layers"), 1),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "qk_nope_head_dim", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 8),
    "q_lora_rank": 24,
    "v_head_dim": 12,
    "sliding_window": 20,
    "is_decoder": True,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 20},
    "gemma3n_text": {
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "activation_sparsity_pattern": [0.0] * 6,
    },
    "zaya": {"num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "zamba2": {"layer_types": ["mamba", "hybrid", "mamba"], "mamba_expand": 2, "n_mamba_heads": 8, "mamba_headdim": 16},
    "longcat_flash": {
        "num_layers": 2,
        "head_dim": 8,
        "expert_ffn_hidden_size": 32,
        "ffn_hidden_size": 96,
        "moe_topk": 2,
        "zero_expert_num": 2,
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
        }
    },
    "xmod": {"default_language": "en_XX"},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
    },
}


REFUSALS = {
    "recurrent state": "refused: a recurrent state",
    "which keep more than keys and values": "refused: more than keys and values",
    "computes something else in chunks": "refused: another result in chunks",
    "does not run over a cache": "refused: no cache of keys and values",
}
"""Words of a message, and the row of the table."""


def tiny(kind: str) -> transformers.PreTrainedConfig:
    """A small configuration: what of `SIZES` this one has."""
    configuration = CONFIG_MAPPING[kind]
    fields = set(configuration().to_dict()) | set(configuration.attribute_map)
    sizes = {name: size for name, size in SIZES.items() if name in fields}
    for alias, name in configuration.attribute_map.items():
        if name in sizes:
            sizes.pop(alias, None)
    if "kv_lora_rank" in sizes:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
        sizes.pop("head_dim", None)
    return configuration(**{**sizes, **OWN_SIZES.get(kind, {})})


def how_it_runs(architecture: str, folder: Path) -> str:
    """The row of the documentation that it belongs to; asserts that what runs gives Transformers' logits."""
    model = getattr(transformers, architecture)(tiny(WALKED[architecture])).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 30_000_000, "this is not tiny"
    randomize(model, gain=1.5)
    model.save_pretrained(folder)
    try:
        ours = load_model(Checkpoint.open(folder), torch.float32)
    except Unsupported as refused:
        return next((why for says, why in REFUSALS.items() if says in refused.message), refused.message)
    error = _largest_error(model, ours)
    assert error <= 1e-3, error
    if architecture in FAMILIES:
        return "family"
    return "one sequence at a time" if isinstance(ours, OwnAttentionModel) else "in batches"


@torch.inference_mode()
def _largest_error(theirs: Any, ours: Model) -> float:
    """Of a prompt in chunks, and of its last token beside another prompt."""
    tokens = torch.randint(3, 300, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    other, pages = tokens[30::-1], [3, 1, 0, 5]
    whole, beside = (
        theirs(input_ids=torch.tensor([part]), use_cache=False).logits[0].float() for part in (tokens, other)
    )
    cache = ours.new_cache(16, 16)
    parts, start = [], 0
    for length in (20, 1, 17, 1, 20):
        part = tokens[start : start + length]
        parts.append(ours.forward([Span(0, length, start, pages)], part, cache, range(length)))
        start += length
    spans = [Span(0, 1, start, pages), Span(1, len(other), 0, [8, 9])]
    last = ours.forward(spans, [tokens[-1], *other], cache, [0, len(other)])
    pairs = [(torch.cat([*parts, last[:1]]), whole), (last[1], beside[-1])]
    return max(float((mine - their).abs().max()) for mine, their in pairs)


def documented() -> dict[str, str]:
    """How each architecture runs, as the table in docs/models.md has it."""
    table = DOCS.read_text().partition("| what happens | architectures |")[2]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)
    return {name: how for how, names in rows for name in re.findall(r"`(\w+)`", names)}


def _write_table() -> None:
    rows: dict[str, list[str]] = {how: [] for how in ("in batches", "one sequence at a time", *REFUSALS.values())}
    for architecture in sorted(set(WALKED) - set(FAMILIES)):
        with tempfile.TemporaryDirectory() as folder:
            rows.setdefault(how_it_runs(architecture, Path(folder)), []).append(f"`{architecture}`")
    table = "".join(f"| {how} | {', '.join(names)} |\n" for how, names in rows.items() if names)
    before, head, rest = DOCS.read_text().partition("| what happens | architectures |\n|---|---|\n")
    DOCS.write_text(before + head + table + rest[rest.index("\n\n") + 1 :])


if __name__ == "__main__":
    _write_table()
