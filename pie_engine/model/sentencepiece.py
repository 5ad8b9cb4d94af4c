"""A SentencePiece `tokenizer.model` as a tokenizer of the `tokenizers` library; needs no other package.

The file is a protobuf message, `sentencepiece_model.proto` of github.com/google/sentencepiece, of which only the few
fields that matter here are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.config import read_json

SPACE = "▁"
_UNLIKELY = 1000.0
"""How much less likely than any other piece those are made that must not be found in a text."""
_ALL = 1 << 30
HINT = (
    "write a tokenizer.json, with transformers, sentencepiece and protobuf installed: "
    "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`"
)


class Kind(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Model:
    """What a `tokenizer.model` says."""

    pieces: list[Piece]
    is_bpe: bool
    """Else unigram."""
    adds_prefix: bool
    removes_extra_spaces: bool
    charsmap: bytes
    """Normalization rules, in SentencePiece's compiled form; empty: none."""

    @property
    def unknown_id(self) -> int | None:
        return next((index for index, piece in enumerate(self.pieces) if piece.kind == Kind.UNKNOWN), None)

    @property
    def has_bytes(self) -> bool:
        return any(piece.kind == Kind.BYTE for piece in self.pieces)


def load_sentencepiece(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of `folder/tokenizer.model`, with the tokens that the other files of the folder add.

    Raises `ModelError` when the file is no SentencePiece model, `Unsupported` for a kind other than BPE and unigram.
    """
    tokenizer = build(read_model(folder / "tokenizer.model"))
    for token_id, token in sorted(_added_tokens(folder).items()):
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(token.content) != token_id:
            raise ModelError(
                f"{folder}: the added token {token.content!r} has the id {token_id}, "
                f"but would get {tokenizer.token_to_id(token.content)} after tokenizer.model",
                hint=HINT,
            )
    return tokenizer


def read_model(path: Path) -> Model:
    """Read the file."""
    try:
        fields = _fields(path.read_bytes())
        trainer, normalizer = _last(fields, 2), _last(fields, 3)
        pieces = [_piece(raw) for number, raw in fields if number == 1 and isinstance(raw, bytes)]
        settings, rules = dict(_fields(trainer)), dict(_fields(normalizer))
        kind = int(settings.get(3, 1))
        charsmap = bytes(rules.get(2, b""))
    except (OSError, ValueError, TypeError, IndexError, struct.error) as error:
        raise ModelError(f"{path} is not a SentencePiece model: {error}", hint=HINT) from error
    if not pieces:
        raise ModelError(f"{path} is not a SentencePiece model: it has no pieces", hint=HINT)
    if kind not in (1, 2):
        raise Unsupported(f"{path} is a SentencePiece model of kind {kind}; supported: unigram (1) and BPE (2)")
    return Model(
        pieces,
        is_bpe=kind == 2,
        adds_prefix=bool(rules.get(3, 1)),
        removes_extra_spaces=bool(rules.get(4, 1)),
        charsmap=charsmap,
    )


def build(model: Model) -> tokenizers.Tokenizer:
    """Encodes and decodes as the SentencePiece library does."""
    tokenizer = tokenizers.Tokenizer(_bpe(model) if model.is_bpe else _unigram(model))
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.removes_extra_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.adds_prefix:
        steps.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.adds_prefix or model.removes_extra_spaces:
        parts.append(decoders.Strip(" ", _ALL if model.removes_extra_spaces else 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    special = (Kind.CONTROL, Kind.UNKNOWN)
    tokenizer.add_special_tokens([_plain_added(piece.text) for piece in model.pieces if piece.kind in special])
    tokenizer.add_tokens([_plain_added(piece.text) for piece in model.pieces if piece.kind == Kind.USER_DEFINED])
    return tokenizer


def _unigram(model: Model) -> models.Unigram:
    lowest = min((piece.score for piece in model.pieces if piece.kind == Kind.NORMAL), default=0.0) - _UNLIKELY
    in_text = (Kind.NORMAL, Kind.USER_DEFINED)
    vocab = [(piece.text, piece.score if piece.kind in in_text else lowest) for piece in model.pieces]
    return models.Unigram(vocab, model.unknown_id, model.has_bytes)


def _bpe(model: Model) -> models.BPE:
    vocab = {piece.text: index for index, piece in enumerate(model.pieces)}
    unknown = None if model.unknown_id is None else model.pieces[model.unknown_id].text
    return models.BPE(vocab, _merges(model), unk_token=unknown, fuse_unk=True, byte_fallback=model.has_bytes)


def _merges(model: Model) -> list[tuple[str, str]]:
    """The pairs that SentencePiece would join, the piece of the highest score first."""
    ids = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == Kind.NORMAL}
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    for text, index in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-model.pieces[index].score, ids[left], ids[right], (left, right)))
    return [pair for *_, pair in sorted(found)]


def _added_tokens(folder: Path) -> dict[int, AddedToken]:
    """By their ids: `added_tokens.json`, and with their switches `added_tokens_decoder` of `tokenizer_config.json`."""
    added: dict[int, AddedToken] = {}
    plain, config = folder / "added_tokens.json", folder / "tokenizer_config.json"
    if plain.is_file():
        added = {int(token_id): _plain_added(text) for text, token_id in read_json(plain).items()}
    if config.is_file():
        for token_id, switches in (read_json(config).get("added_tokens_decoder") or {}).items():
            added[int(token_id)] = _added(switches)
    return added


def _added(switches: Mapping[str, object]) -> AddedToken:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(str(switches["content"]), **{name: bool(switches.get(name)) for name in names})


def _plain_added(text: str) -> AddedToken:
    return AddedToken(text, normalized=False)


# Protobuf's wire format (protobuf.dev/programming-guides/encoding).


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    score = fields.get(2, b"\0\0\0\0")
    return Piece(bytes(fields[1]).decode(), struct.unpack("<f", bytes(score))[0], Kind(int(fields.get(3, Kind.NORMAL))))


def _last(fields: list[tuple[int, int | bytes]], number: int) -> bytes:
    found = [raw for at, raw in fields if at == number and isinstance(raw, bytes)]
    return found[-1] if found else b""


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    return list(_read_fields(data))


def _read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a message: an integer, or bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if not number:
            raise ValueError("a field without a number")
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(data, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if at + size > len(data):
            raise ValueError("it ends within a field")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number that does not end")
