"""The tokenizer that a GGUF file carries in its metadata, for the `tokenizers` library."""

from __future__ import annotations

from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.gguf_file.header import Header
from pie_engine.model.sentencepiece import Kind, Model, Piece, build

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_SPLITS = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "dbrx": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "gpt-2": "",
    "phi-2": "",
    "olmo": "",
    "default": "",
    "smollm": "",
    "refact": "",
    "granite": "",
    "starcoder": "",
    "command-r": "",
}
"""By `tokenizer.ggml.pre`: the words that text is cut into before merging; empty: GPT-2's, which ByteLevel has."""
_SINGLE_DIGITS = frozenset({"smollm", "refact", "starcoder", "command-r"})
_NFC = frozenset({"qwen2", "deepseek-r1-qwen", "command-r"})


def hf_tokenizer(header: Header) -> tokenizers.Tokenizer:
    """Raises `Unsupported` for a kind or a way of cutting words that Pie does not know, `ModelError` when damaged."""
    kind = header.metadata.get("tokenizer.ggml.model")
    try:
        if kind == "gpt2":
            return _byte_level(header)
        if kind == "llama":
            return build(_sentencepiece(header))
    except Unsupported:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{header.path} has a damaged tokenizer: {error}", hint="download it again") from error
    raise Unsupported(f"{header.path}: tokenizer `{kind}` is not supported", hint="supported: gpt2, llama")


def special_tokens(header: Header) -> dict[str, str]:
    """`bos_token`, `eos_token` and so on, by their texts."""
    tokens = header.metadata.get("tokenizer.ggml.tokens", [])
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    ids = {name: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for key, name in names.items()}
    return {name: tokens[token] for name, token in ids.items() if token is not None and token < len(tokens)}


def _pieces(header: Header) -> list[Piece]:
    tokens = header.metadata["tokenizer.ggml.tokens"]
    kinds = header.metadata.get("tokenizer.ggml.token_type") or [Kind.NORMAL] * len(tokens)
    scores = header.metadata.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    return [Piece(*piece) for piece in zip(tokens, scores, map(Kind, kinds), strict=True)]


def _sentencepiece(header: Header) -> Model:
    """Although the score of a piece is its rank, what llama.cpp calls `llama` is SentencePiece's BPE."""
    return Model(
        _pieces(header),
        is_bpe=True,
        adds_prefix=bool(header.metadata.get("tokenizer.ggml.add_space_prefix", True)),
        removes_extra_spaces=bool(header.metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)),
        charsmap=b"",
    )


def _byte_level(header: Header) -> tokenizers.Tokenizer:
    pre = str(header.metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in _SPLITS:
        raise Unsupported(
            f"{header.path}: the tokenizer cuts words as `{pre}` does, which is not supported",
            hint=f"supported: {', '.join(_SPLITS)}; or use the model's Hugging Face folder",
        )
    pieces = _pieces(header)
    vocab = {piece.text: index for index, piece in enumerate(pieces)}
    merges = [tuple(merge.split(" ", 1)) for merge in header.metadata["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=_SPLITS[pre] == _LLAMA3))
    tokenizer.normalizer = normalizers.NFC() if pre in _NFC else None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_cuts(pre))
    tokenizer.decoder = decoders.ByteLevel()
    for piece in pieces:
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(piece.text, normalized=False)])
        elif piece.kind == Kind.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(piece.text, normalized=False)])
    return tokenizer


def _cuts(pre: str) -> list[Any]:
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pre in _SINGLE_DIGITS else []
    if not (split := _SPLITS[pre]):
        return [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return [
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
