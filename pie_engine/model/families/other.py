"""Any other causal language model, which Transformers runs over our paged attention (`transformers_model.py`).

The sizes here are for telling and estimating; the ones that count are read off the loaded model.
"""

from __future__ import annotations

from pie_engine.errors import Unsupported
from pie_engine.model.description import LayerConfig, ModelConfig
from pie_engine.model.fields import Fields
from pie_engine.model.rope_config import check_limit

RECURRENT = (
    "Bamba",
    "FalconH1",
    "GraniteMoeHybrid",
    "Jamba",
    "Mamba",
    "NemotronH",
    "Qwen3Next",
    "Qwen3_5",
    "RecurrentGemma",
    "Rwkv",
    "xLSTM",
    "Zamba",
)
"""In the names of architectures with state-space or linear-attention layers, which are refused before Transformers is
asked for. It says of the rest whether they are."""
_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model", "emb_dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers"),
    "num_attention_heads": (
        "n_head",
        "n_heads",
        "num_heads",
        "attention_heads",
        "decoder_attention_heads",
        "num_decoder_attention_heads",
    ),
    "num_key_value_heads": ("num_kv_heads",),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"),
}


def describe(get: Fields) -> ModelConfig:
    architecture = str(get.raw["architectures"][0])
    if get.raw.get("is_encoder_decoder"):
        raise Unsupported(
            f"{get.where}: {architecture} has an encoder and a decoder", hint="Pie runs decoder-only models"
        )
    if any(name in architecture for name in RECURRENT):
        raise Unsupported(
            f"{get.where}: {architecture} has layers with a recurrent state, which KV pages cannot hold",
            hint="docs/models.md says what runs",
        )
    text = get.inner("text_config") if isinstance(get.raw.get("text_config"), dict) else get
    get = text.over(**{name: value for name, names in _OTHER_NAMES.items() if (value := _first(text, names))})
    if get.raw.get("num_attention_heads") is None:
        raise Unsupported(
            f"{get.where}: {architecture} has no attention heads",
            hint="Pie keeps what a model remembers in KV pages; models with a recurrent state only have none",
        )
    hidden_size, num_heads = get.size("hidden_size"), get.size("num_attention_heads")
    return ModelConfig(
        architecture=architecture,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_heads=num_heads,
        num_kv_heads=get.size("num_key_value_heads", num_heads),
        head_dim=get.size("head_dim", max(hidden_size // num_heads, 1)),
        vocab_size=get.size("vocab_size"),
        max_context_tokens=_context(get),
        norm_eps=0.0,
        layers=(LayerConfig(),) * get.size("num_hidden_layers"),
        tie_embeddings=False,
        dtype=get.dtype(),
        bos_id=next(iter(get.token_ids("bos_token_id")), None),
        needs_transformers=True,
    )


def _context(get: Fields) -> int:
    own = get.size("max_position_embeddings", 2048)
    check_limit(get, own)
    return get.context_limit or own


def _first(get: Fields, names: tuple[str, ...]) -> object:
    return next((get.raw[name] for name in names if get.raw.get(name) is not None), None)
