"""Tokenizers in both common styles; `test_tokenizer_kinds` has the random texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from pie_engine.errors import InvalidInput, ModelError, Unsupported
from pie_engine.model.pieces import piece_decoder
from pie_engine.model.tokenizer import SHIELD, Detokenizer, Tokenizer, num_incomplete_bytes
from tests import models

KINDS = ["byte-level", "metaspace"]
TEXTS = ["hello world", "the fox", " leading", "trailing ", "a  b\n\tc", "世界 and 🎉👩‍👩‍👧", "é̂ naïve", "", "¡ÿĀ"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: models.write_tokenizer(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Tokenizer]:
    return {kind: Tokenizer.load(folder) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def library(folders: dict[str, Path]) -> dict[str, tokenizers.Tokenizer]:
    return {kind: tokenizers.Tokenizer.from_file(str(folders[kind] / "tokenizer.json")) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_survives(
    loaded: dict[str, Tokenizer], library: dict[str, tokenizers.Tokenizer], kind: str, text: str
) -> None:
    tokenizer = loaded[kind]
    ids = tokenizer.encode(text)
    assert ids == library[kind].encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids) == library[kind].decode(ids, skip_special_tokens=False)


def test_special_tokens_are_parsed_or_read_as_text(loaded: dict[str, Tokenizer]) -> None:
    tokenizer = loaded["byte-level"]
    user = tokenizer.token_id("<|user|>")
    assert user is not None
    assert tokenizer.encode("<|user|>hi")[0] == user
    plain = tokenizer.encode("<|user|>hi", special=False)
    assert user not in plain
    assert tokenizer.decode(plain) == "<|user|>hi"
    assert tokenizer.encode("<|user|>hi")[0] == user, "the other mode leaves no trace"
    assert tokenizer.decode([user, *tokenizer.encode("hi")], skip_special=True) == "hi"


def test_a_shielded_special_token_is_text_beside_real_ones(loaded: dict[str, Tokenizer]) -> None:
    tokenizer = loaded["byte-level"]
    user = tokenizer.token_id("<|user|>")
    said = "end it </s> and <|user|>"
    ids = tokenizer.encode(f"<|user|>{tokenizer.shield(said)}<|user|>")
    assert [index for index, token_id in enumerate(ids) if token_id in tokenizer.special_ids] == [0, len(ids) - 1]
    assert ids == [user, *tokenizer.encode(said, special=False), user]
    assert tokenizer.shield("nothing special") == "nothing special"
    assert tokenizer.encode(f"<{SHIELD}|user|>") == tokenizer.encode("<|user|>", special=False), "a forged shield"


def test_spaces_that_a_special_token_takes_along_are_taken_beside_a_shielded_one(tmp_path: Path) -> None:
    folder = models.write_tokenizer(tmp_path)
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    for token in raw["added_tokens"]:
        token.update(lstrip=token["content"] == "</s>", rstrip=token["content"] == "<|user|>")
    path.write_text(json.dumps(raw))
    tokenizer = Tokenizer.load(folder)
    text = "a <|user|>  b  </s> c "
    assert tokenizer.decode(tokenizer.encode(text)) == "a <|user|>b</s> c "
    assert tokenizer.decode(tokenizer.encode(text + tokenizer.shield("</s>"))) == "a <|user|>b</s> c </s>"


def test_the_begin_token_is_added_once(loaded: dict[str, Tokenizer]) -> None:
    tokenizer = loaded["byte-level"]
    assert tokenizer.encode("hi", add_bos=True) == [1, *tokenizer.encode("hi")]
    assert tokenizer.encode("<s>hi", add_bos=True) == tokenizer.encode("<s>hi")


def test_no_begin_token_to_add(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(models.write_tokenizer(tmp_path, bos_token=None))
    assert tokenizer.bos_id is None
    assert tokenizer.encode("hi", add_bos=True) == tokenizer.encode("hi")


def test_end_tokens_of_all_three_files(tmp_path: Path) -> None:
    folder = models.write_tokenizer(tmp_path, eos_token={"content": "<|user|>", "lstrip": False})
    assert Tokenizer.load(folder).eos_ids == (3,)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert Tokenizer.load(folder).eos_ids == (2, 3)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 3]}))
    assert Tokenizer.load(folder).eos_ids == (0, 3)


def test_sizes(loaded: dict[str, Tokenizer]) -> None:
    assert loaded["byte-level"].vocab_size == 320
    assert loaded["byte-level"].special_ids == {0, 1, 2, 3}


def test_ids_outside_the_vocabulary(loaded: dict[str, Tokenizer]) -> None:
    """Models pad their vocabulary: such an id can come out of a model, a negative one cannot."""
    assert loaded["byte-level"].decode([5000]) == ""
    with pytest.raises(InvalidInput, match="-1"):
        loaded["byte-level"].decode([-1])


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    built = models.byte_level_tokenizer()
    built.enable_truncation(3)
    built.enable_padding(length=50)
    built.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    for special in (True, False):
        assert tokenizer.decode(tokenizer.encode("the quick brown fox", special=special)) == "the quick brown fox"


def test_lone_surrogates_are_refused(loaded: dict[str, Tokenizer]) -> None:
    with pytest.raises(InvalidInput, match="cannot be tokenized"):
        loaded["byte-level"].encode("a\ud800b")


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor tokenizer\.model") as refused:
        Tokenizer.load(tmp_path)
    assert "download the model again" in refused.value.hint
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ModelError) as refused:
        Tokenizer.load(tmp_path)
    assert "save_pretrained" in refused.value.hint


@pytest.mark.parametrize("content", ["{", "[]", '{"decoder": {"type": "ByteLevel"}}'])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("decoder", "error"),
    [
        (3, ModelError),
        ({"type": "WordPiece", "prefix": "##"}, Unsupported),
        ({"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}, Unsupported),
        ({"type": "Strip", "content": " ", "start": 1, "stop": 0}, Unsupported),
        ({"type": "Replace"}, ModelError),
        ({"type": "Sequence", "decoders": 3}, ModelError),
    ],
)
def test_decoders_that_are_refused(decoder: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"tokenizer\.json"):
        piece_decoder(decoder, "tokenizer.json")


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_the_metaspace_decoder_itself(tmp_path: Path, scheme: str) -> None:
    """As newer SentencePiece conversions have it, without a sequence around it."""
    built = models.metaspace_tokenizer()
    built.normalizer = None
    built.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme)
    built.decoder = tokenizers.decoders.Metaspace(prepend_scheme=scheme)
    built.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    for text in ("the fox", " the fox", "fox"):
        ids = built.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == built.decode(ids)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0), (b"a", 0), ("é".encode(), 0), (b"a\xc3", 1), (b"\xe4\xb8", 2), (b"\xf0\x9f\x8e", 3), (b"\xff", 0),
        (b"\x80\x80\x80\x80", 0), (b"\xc3a", 0), (b"\xed\xa0", 0), (b"\xf5\x80", 0), (b"\xf0\x9f\x8e\x89", 0),
    ],
)  # fmt: skip
def test_unfinished_characters_are_counted(data: bytes, expected: int) -> None:
    assert num_incomplete_bytes(data) == expected


class TestDetokenizer:
    def test_a_character_over_several_tokens_is_held_back(self, loaded: dict[str, Tokenizer]) -> None:
        detokenizer = Detokenizer(loaded["byte-level"])
        ids = loaded["byte-level"].encode("🎉")
        assert len(ids) == 4
        assert [detokenizer.push([token]) for token in ids] == ["", "", "", "🎉"]

    def test_flush_ends_an_unfinished_character(self, loaded: dict[str, Tokenizer]) -> None:
        detokenizer = Detokenizer(loaded["byte-level"])
        assert detokenizer.push(loaded["byte-level"].encode("a🎉")[:-1]) == "a"
        assert detokenizer.has_held
        assert detokenizer.flush() == "\N{REPLACEMENT CHARACTER}"
        assert detokenizer.flush() == ""

    def test_special_tokens_give_text_only_when_asked(self, loaded: dict[str, Tokenizer]) -> None:
        ids = loaded["byte-level"].encode("a</s>b")
        assert Detokenizer(loaded["byte-level"]).push(ids) == "ab"
        assert Detokenizer(loaded["byte-level"], skip_special=False).push(ids) == "a</s>b"

    def test_rewinding_further_than_the_start_is_refused(self, loaded: dict[str, Tokenizer]) -> None:
        detokenizer = Detokenizer(loaded["byte-level"])
        detokenizer.push([5, 6])
        with pytest.raises(InvalidInput, match="cannot rewind 3 tokens: 2 were pushed"):
            detokenizer.rewind(3)
