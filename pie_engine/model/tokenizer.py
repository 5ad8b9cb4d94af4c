"""Text to token ids and back, incrementally; no torch, no transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from pie_engine.errors import InvalidInput, ModelError, Unsupported
from pie_engine.model.config import read_eos_ids, read_json
from pie_engine.model.pieces import PieceDecoder, piece_decoder
from pie_engine.model.prefix import drop_prefix, prefix_scheme
from pie_engine.model.sentencepiece import HINT, load_sentencepiece

SHIELD = "\ufdd0"
"""After the first character of a special token it makes that token plain text. Unicode never gives it a meaning."""


class Tokenizer:
    """A checkpoint's `tokenizer.json`, or its SentencePiece `tokenizer.model`, with its special tokens.

    Decoding is our own over the bytes of each token, so that the whole and the incremental form agree: a run of bytes
    that is no UTF-8 gives U+FFFD by Python's `replace` rule. Text that came from `encode` decodes as the `tokenizers`
    library decodes it; added tokens stand for themselves.
    """

    def __init__(
        self,
        load: Callable[[], tokenizers.Tokenizer],
        decoder: PieceDecoder,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        eos_ids: tuple[int, ...] = (),
    ) -> None:
        self._load = load
        self._parsing = load()
        self._prefix = prefix_scheme(self._parsing)
        self._literals: dict[bool, tokenizers.Tokenizer] = {}
        self._decoder = decoder
        added = self._parsing.get_added_tokens_decoder()
        self._special = {token.content: (token_id, token) for token_id, token in added.items() if token.special}
        self.special_ids = frozenset(token_id for token_id, _ in self._special.values())
        # Not by the table of a byte-level decoder, as the library does: it would take the é of a token `né` for a byte.
        self._texts: dict[bool, dict[int, str]] = {True: {}, False: {}}
        """Of tokens that are whole characters, when nothing is held back before them; with special tokens skipped, and
        not."""
        self._pieces = {key: token.content.encode() for key, token in added.items()} if decoder.byte_level else {}
        longest_first = sorted(map(re.escape, self._special), key=len, reverse=True)
        self._special_pattern = re.compile("|".join(longest_first)) if longest_first else None
        self.vocab_size: int = max(self._parsing.get_vocab_size(), max(added, default=-1) + 1)
        self.bos_token, self.eos_token = bos_token, eos_token
        self.bos_id = self.token_id(bos_token) if bos_token else None
        eos_id = self.token_id(eos_token) if eos_token else None
        self.eos_ids = tuple(dict.fromkeys([*eos_ids, *([] if eos_id is None else [eos_id])]))
        """The tokens at which generation ends: the generation configuration's first, then the tokenizer's own."""

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json` or `tokenizer.model`, and `tokenizer_config.json`.

        Raises `ModelError` or `Unsupported`, naming the file.
        """
        folder = Path(folder)
        path = _tokenizer_file(folder)
        load, raw_decoder = _loader(path)
        special = read_special_tokens(folder)
        try:
            return cls(
                load,
                replace(piece_decoder(raw_decoder, str(path)), strips_bytes=path.suffix == ".json"),
                bos_token=special.get("bos_token"),
                eos_token=special.get("eos_token"),
                eos_ids=read_eos_ids(folder),
            )
        except (ModelError, Unsupported):
            raise
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}", hint="download the model again") from error

    def encode(self, text: str, *, special: bool = True, add_bos: bool = False, continues: bool = False) -> list[int]:
        """Token ids of `text`.

        `special=False` reads special tokens in it as plain text (for untrusted input), and so does a shield for the
        one in which it stands. `continues`: the text goes on after other text, so SentencePiece's leading space, which
        is not in the text, is not added at its start.
        """
        continues = continues and self._prefix != "none"
        try:
            if not special or self._special_pattern is None:
                ids = self._encode_literally(text, has_prefix=not continues)
            elif continues or SHIELD in text:
                ids = self._encode_parts(text, self._special_pattern, continues=continues)
            else:
                ids = self._parsing.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:  # lone surrogates
            raise InvalidInput(f"text cannot be tokenized: {error}") from error
        return [self.bos_id, *ids] if add_bos and self.bos_id is not None and ids[:1] != [self.bos_id] else ids

    def encode_after(self, tokens: Sequence[int], text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text` as it goes on after `tokens`: a leading space is only added at the start of a text, and
        after a special token."""
        continues = bool(tokens) and tokens[-1] not in self.special_ids
        return self.encode(text, special=special, continues=continues)

    def shield(self, text: str) -> str:
        """The text with a shield in each special token, so that `encode` reads it as the plain text that it is."""
        if self._special_pattern is None:
            return text
        return self._special_pattern.sub(lambda found: f"{found[0][0]}{SHIELD}{found[0][1:]}", text)

    def _encode_parts(self, text: str, pattern: re.Pattern[str], *, continues: bool) -> list[int]:
        """Special tokens without a shield as such, and what is between them as plain text."""
        ids: list[int] = []
        start, strips_left = 0, False
        for found in [*pattern.finditer(text), None]:
            between = text[start : found.start() if found else len(text)].replace(SHIELD, "")
            token_id, token = self._special[found[0]] if found else (None, None)
            between = between.lstrip() if strips_left else between
            between = between.rstrip() if token is not None and token.lstrip else between
            has_prefix = self._prefix == "each" if start else not continues
            ids += self._encode_literally(between, has_prefix=has_prefix) if between else []
            if found and token_id is not None and token is not None:
                ids.append(token_id)
                start, strips_left = found.end(), token.rstrip
        return ids

    def _encode_literally(self, text: str, *, has_prefix: bool) -> list[int]:
        """Special tokens are read as plain text."""
        ids: list[int] = self._literal(has_prefix).encode(text, add_special_tokens=False).ids
        if self._special_pattern is None or self.special_ids.isdisjoint(ids):
            return ids
        found = [match for match in self._special_pattern.finditer(text) if self._special[match[0]][0] in ids]
        if not found:
            return ids  # only the unknown token
        # A unigram model finds its special tokens in a text as it finds any other piece: cut where none fits.
        cut = found[0].start() + 1
        head = self._encode_literally(text[:cut], has_prefix=has_prefix)
        return head + self._encode_literally(text[cut:], has_prefix=False)

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of `ids`."""
        detokenizer = Detokenizer(self, skip_special=skip_special)
        return detokenizer.push(ids) + detokenizer.flush()

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact spelling in the vocabulary."""
        token_id: int | None = self._parsing.token_to_id(token)
        return token_id

    def token(self, token_id: int) -> str:
        """How the vocabulary spells an id; empty for ids that it does not have."""
        return self._parsing.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for inside a text; empty for ids that the vocabulary does not have."""
        piece = self._pieces.get(token_id)
        if piece is None:
            if token_id < 0:
                raise InvalidInput(f"token id {token_id} is negative")
            token = self._parsing.id_to_token(token_id)
            piece = b"" if token is None else self._decoder.piece(token)
            self._pieces[token_id] = piece
        return piece

    def _literal(self, has_prefix: bool) -> tokenizers.Tokenizer:
        """Further instances, because reading special tokens as text is a mode of the library's object."""
        literal = self._literals.get(has_prefix)
        if literal is None:
            literal = self._literals[has_prefix] = self._load()
            literal.encode_special_tokens = True
            if not has_prefix:
                drop_prefix(literal)
        return literal


_CLEAN = (b"", 0)
"""A detokenizer that holds nothing back, past the start of its text."""


class Detokenizer:
    """Text of a token stream that is pushed piece by piece.

    What `push` returns is always whole characters; the concatenation of all pushes and the final `flush` is
    `Tokenizer.decode` of all ids. `rewind` forgets tokens as if they had never been pushed.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer._decoder
        self._skipped = tokenizer.special_ids if skip_special else frozenset()
        self._texts = tokenizer._texts[skip_special]
        self.states: list[tuple[bytes, int]] = [(b"", self._decoder.initial_state)]
        """To be read only. After each token: the bytes held back, and how far the start of the text was handled."""

    def fork(self) -> Detokenizer:
        """Another one at the same place, which goes its own way."""
        child = copy(self)
        child.states = self.states[:]
        return child

    @property
    def num_tokens(self) -> int:
        return len(self.states) - 1

    @property
    def has_held(self) -> bool:
        """Whether the last tokens end within a character."""
        return bool(self.states[-1][0])

    def push_one(self, token_id: int) -> str:
        """The text that one more token completes. Most are whole characters, of which the text is known."""
        states = self.states
        is_clean = states[-1] is _CLEAN
        if is_clean:
            text = self._texts.get(token_id)
            if text is not None:
                states.append(_CLEAN)
                return text
        text = self.push((token_id,))
        if states[-1] == _CLEAN:
            states[-1] = _CLEAN
            if is_clean:
                self._texts[token_id] = text
        return text

    def push(self, ids: Sequence[int]) -> str:
        """The text that `ids` complete."""
        held, start = self.states[-1]
        text = [held]
        for token_id in ids:
            piece = b""
            if token_id not in self._skipped:
                piece = self._tokenizer.token_bytes(token_id)
                if start and piece:
                    piece, start = self._decoder.at_start(self._tokenizer.token(token_id), start)
            if piece:
                text.append(piece)
                held = held + piece if piece[-1] >= 0x80 else b""
                held = held[len(held) - num_incomplete_bytes(held) :]
            self.states.append((held, start))
        whole = b"".join(text)
        return whole[: len(whole) - len(held)].decode("utf-8", "replace")

    def flush(self) -> str:
        """What is held back, at the end of the stream: an unfinished character becomes U+FFFD."""
        held, start = self.states[-1]
        self.states[-1] = (b"", start)
        return held.decode("utf-8", "replace")

    def rewind(self, num_tokens: int) -> None:
        """Forget the last `num_tokens` tokens."""
        if not 0 <= num_tokens <= self.num_tokens:
            raise InvalidInput(f"cannot rewind {num_tokens} tokens: {self.num_tokens} were pushed")
        del self.states[len(self.states) - num_tokens :]


def num_incomplete_bytes(data: bytes) -> int:
    """Length of the unfinished character at the end of `data` (0 to 3): bytes that more bytes could complete."""
    for length in range(1, min(3, len(data)) + 1):
        lead = data[-length]
        if lead < 0x80:
            return 0
        if lead >= 0xC0:
            try:
                data[-length:].decode("utf-8")
            except UnicodeDecodeError as error:
                return length if error.reason == "unexpected end of data" else 0
            return 0
    return 0


def _tokenizer_file(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    is_older = (folder / "vocab.json").is_file()
    hint = HINT if is_older else "download the model again with its tokenizer files"
    raise ModelError(f"{folder} has neither tokenizer.json nor tokenizer.model", hint=hint)


def _loader(path: Path) -> tuple[Callable[[], tokenizers.Tokenizer], Any]:
    """What loads the tokenizer, and the `decoder` section of its JSON form."""
    if path.suffix == ".json":
        return (lambda: _load_json(path)), read_json(path).get("decoder")
    text = load_sentencepiece(path.parent).to_str()
    return (lambda: tokenizers.Tokenizer.from_str(text)), json.loads(text)["decoder"]


def _load_json(path: Path) -> tokenizers.Tokenizer:
    """Some files carry the truncation and padding of their training: a prompt must stay as it is."""
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def read_special_tokens(folder: Path) -> dict[str, str]:
    """The named special tokens (`bos_token`, `eos_token`, …) of a model folder, by their text."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            tokens.update(_token_texts(read_json(path)))
    return tokens


def _token_texts(raw: dict[str, Any]) -> dict[str, str]:
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in raw.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}
