"""Training and saving of the byte-level BPE tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pie_engine.model.tiny import chat_format
from pie_engine.model.tiny.corpus import examples
from pie_engine.model.tiny.draw import Json

VOCAB_SIZE = 2048
MAX_POSITIONS = 2048
NUM_TRAINING_EXAMPLES = 30_000

# Digits stand alone and capitalised words never take the space before them, so that a number or a name has the same
# tokens wherever it stands: copying it needs no re-spelling.
PRE_TOKEN = Regex(
    r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{Ll}+|\p{Lu}[\p{Ll}\p{M}]*|\p{N}"
    r"| ?[\p{Lo}\p{Lm}\p{Lt}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
)


def train_tokenizer(seed: int) -> Tokenizer:
    """A tokenizer of `VOCAB_SIZE` tokens that can write any UTF-8 text, trained on the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PRE_TOKEN, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(chat_format.TEXT_TOKENS),
        special_tokens=list(chat_format.CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_plain_texts(seed), trainer)
    # Not "special": a reader of the text must see where a tool call begins.
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in chat_format.TEXT_TOKENS])
    return tokenizer


def _plain_texts(seed: int) -> Iterator[str]:
    markers = {*chat_format.CONTROL_TOKENS}
    for example in islice(examples(seed), NUM_TRAINING_EXAMPLES):
        for segment in chat_format.segments(example):
            if segment.text not in markers:
                yield segment.text.removesuffix(chat_format.END)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three tokenizer files of a Hugging Face checkpoint."""
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": chat_format.BEGIN, "eos_token": chat_format.END, "pad_token": chat_format.PAD}
    roles = list(chat_format.ROLE_TOKENS.values())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        **special,
        "extra_special_tokens": roles,
        "chat_template": chat_format.CHAT_TEMPLATE,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special | {"additional_special_tokens": roles})


def _write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
