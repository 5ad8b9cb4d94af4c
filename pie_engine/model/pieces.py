"""The bytes that a token of the vocabulary stands for, by the `decoder` section of `tokenizer.json`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pie_engine.errors import ModelError, Unsupported

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class PieceDecoder:
    """A decoder as a function of one token, plus what it does at the start of the text."""

    byte_level: bool = False
    """Characters stand for bytes, as in GPT-2."""
    byte_fallback: bool = False
    """`<0x0A>` stands for a byte, as in SentencePiece."""
    is_joined: bool = False
    """Tokens are words with spaces between them: what a tokenizer without a decoder gives."""
    replacements: tuple[tuple[str, str], ...] = ()
    strip: bytes = b""
    """Taken off the start of the text, up to `num_strip` times; all of the first token's when `strip_token`."""
    num_strip: int = 0
    strip_token: bool = False
    strips_bytes: bool = True
    """Whether a byte token that is a space counts as the space at the start; not in the SentencePiece library."""

    @property
    def initial_state(self) -> int:
        """How many strips are left before the first token; 0 once the start has been handled."""
        return self.num_strip

    def piece(self, token: str) -> bytes:
        """The bytes of `token` inside a text."""
        if self.byte_level:
            try:
                return bytes(_BYTE_OF_CHAR[char] for char in token)
            except KeyError:  # no byte-level token after all: it stands for itself
                return token.encode()
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.is_joined:
            return b" " + token.encode()
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.encode()

    def at_start(self, token: str, num_left: int) -> tuple[bytes, int]:
        """`token` as the next of the text while `num_left` strips are left, and how many are left after it."""
        piece = self.piece(token)
        if not self.strips_bytes and _BYTE_TOKEN.fullmatch(token):
            return piece, 0
        if self.strip_token:
            return piece.replace(self.strip, b""), 0
        while num_left and piece.startswith(self.strip):
            piece, num_left = piece[len(self.strip) :], num_left - 1
        return piece, 0 if piece else num_left


def piece_decoder(raw: Any, where: str) -> PieceDecoder:
    """The decoder that `tokenizer.json` asks for; raises `Unsupported` for one that is not a function of tokens."""
    if raw is None:
        return PieceDecoder(is_joined=True, strip=b" ", num_strip=1)
    if not isinstance(raw, dict):
        raise ModelError(f"{where} has a damaged decoder: {raw!r}", hint="download the model again")
    steps = raw.get("decoders", []) if raw.get("type") == "Sequence" else [raw]
    decoder: dict[str, Any] = {"replacements": ()}
    is_fused = False
    try:
        for step in steps:
            match step["type"]:
                case "ByteLevel":
                    decoder["byte_level"] = True
                case "ByteFallback":
                    decoder["byte_fallback"] = True
                case "Fuse":
                    is_fused = True
                case "Replace" if "String" in step["pattern"]:
                    decoder["replacements"] += ((step["pattern"]["String"], step["content"]),)
                case "Metaspace":
                    decoder["replacements"] += ((step["replacement"], " "),)
                    if _strips_first_token(step):
                        decoder |= {"strip": b" ", "num_strip": 1, "strip_token": True}
                case "Strip" if is_fused and not step["stop"]:
                    decoder |= {"strip": step["content"].encode(), "num_strip": step["start"]}
                case name:
                    raise Unsupported(
                        f"{where}: decoder step {name!r} is not supported",
                        hint="supported: ByteLevel, Metaspace, and ByteFallback sequences",
                    )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{where} has a damaged decoder: {error}", hint="download the model again") from error
    return PieceDecoder(**decoder)


def _strips_first_token(metaspace: dict[str, Any]) -> bool:
    """`prepend_scheme` in newer files, `add_prefix_space` in older ones."""
    return bool(
        metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never") != "never"
    )


def _byte_of_char() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 characters are their own byte, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()
