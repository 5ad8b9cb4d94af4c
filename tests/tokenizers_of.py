"""Small trained tokenizers in the forms that checkpoints come with, as folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "the quick brown fox jumps over the lazy dog and runs away from the bear",
    "hello world, hello Pie: a programmable server for language models",
    "numbers 0123456789 and (brackets) [of] {many} <kinds>",
    "naïve café, größer; 日本語のテキスト 世界",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>"]
ADDED = ["<tool_call>", "  ", "né"]
"""Added tokens that are not special: they are text, and in `né` not even ASCII."""


def write(folder: Path, kind: str) -> Path:
    """The tokenizer `kind` of `KINDS`."""
    folder.mkdir(parents=True, exist_ok=True)
    KINDS[kind](folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def _write_json(folder: Path, tokenizer: tokenizers.Tokenizer) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "</s>"}))


def _byte_level(folder: Path) -> None:
    """As Llama 3 and Qwen 2 have it: a regular expression cuts the text, then BPE over bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ADDED])
    _write_json(folder, tokenizer)


def _llama_2(folder: Path) -> None:
    """SentencePiece-BPE as its first conversions have it: each part of a text gets a leading space."""
    tokenizer = _converted_bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _write_json(folder, tokenizer)


def _mistral(folder: Path) -> None:
    """The newer conversions: only a text's start gets a leading space."""
    tokenizer = _converted_bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _write_json(folder, tokenizer)


def _gemma(folder: Path) -> None:
    """No leading space at all."""
    tokenizer = _converted_bpe()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _write_json(folder, tokenizer)


def _unigram(folder: Path) -> None:
    """A unigram model with byte fallback behind the pre-tokenizer that SentencePiece conversions of T5's kind have."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=420, special_tokens=[*SPECIAL, *pieces], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    raw = json.loads(tokenizer.to_str())
    raw["model"]["byte_fallback"] = True
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(raw))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _write_json(folder, tokenizer)


def _words(folder: Path) -> None:
    """The least that a `tokenizer.json` can be: words from a list, and no decoder."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocab = {word: index for index, word in enumerate([*SPECIAL[:3], *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL[:3])
    _write_json(folder, tokenizer)


def _sentencepiece(model_type: str, **settings: object) -> Callable[[Path], None]:
    """Only a `tokenizer.model`, as the SentencePiece library writes it."""

    def write_model(folder: Path) -> None:
        (folder / "tokenizer.model").write_bytes(train_sentencepiece(model_type, **settings))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))

    return write_model


def train_sentencepiece(model_type: str, **settings: object) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=written,
        model_type=model_type,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **{
            "vocab_size": 400,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            **settings,
        },
    )
    return written.getvalue()


def _converted_bpe() -> tokenizers.Tokenizer:
    """Vocabulary and merges of a small SentencePiece-BPE, without what is around them."""
    letters = sorted({char for text in TEXTS for char in text.replace(" ", "▁")})
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("he", "ll"), ("▁", "▁"), ("▁▁", "▁▁"), ("<", "s")]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {text: index for index, text in enumerate([*SPECIAL, *pieces, *letters, *map("".join, merges)])}
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    return tokenizer


KINDS: dict[str, Callable[[Path], None]] = {
    "byte-level": _byte_level,
    "llama-2": _llama_2,
    "mistral": _mistral,
    "gemma": _gemma,
    "unigram": _unigram,
    "words": _words,
    "sentencepiece-bpe": _sentencepiece("bpe"),
    "sentencepiece-unigram": _sentencepiece("unigram"),
    "sentencepiece-nfkc": _sentencepiece(
        "unigram", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True, byte_fallback=False
    ),
    "sentencepiece-plain": _sentencepiece("bpe", add_dummy_prefix=False),
}
