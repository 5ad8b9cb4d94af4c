"""Every kind of tokenizer that checkpoints come with, against the libraries that wrote it; all texts are random."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pie_engine.core.text import ReplyText, StopStrings
from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.tokenizer import SHIELD, Detokenizer, Tokenizer
from tests import thoroughness, tokenizers_of

KINDS = list(tokenizers_of.KINDS)
WITH_JSON = ["byte-level", "llama-2", "mistral", "gemma", "unigram", "words"]
FROM_MODEL = [kind for kind in KINDS if kind not in WITH_JSON]
LOSSLESS = ["byte-level", "llama-2", "gemma", "sentencepiece-bpe", "sentencepiece-unigram", "sentencepiece-plain"]
"""What is decoded is what was encoded, to the last space."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_WORDS = "the hello fox 世界 naïve 日本語 🎉👩‍👩‍👧 né <kinds> <s> </s> <0x41> <tool_call> ▁ ▁▁"
words = st.sampled_from([*_WORDS.split(), " ", "  ", "\n"])
texts = st.lists(words | st.text(max_size=4), max_size=12).map("".join).filter(lambda text: SHIELD not in text)


class World:
    """The tokenizers of all kinds, trained once."""

    def __init__(self, root: Path) -> None:
        self.folders = {kind: tokenizers_of.write(root / kind, kind) for kind in KINDS}
        self.ours = {kind: Tokenizer.load(folder) for kind, folder in self.folders.items()}
        self.theirs = {kind: transformers.AutoTokenizer.from_pretrained(self.folders[kind]) for kind in WITH_JSON}
        self.library = {
            kind: sentencepiece.SentencePieceProcessor(model_file=str(self.folders[kind] / "tokenizer.model"))
            for kind in FROM_MODEL
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("tokenizers"))


def random_ids(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Any ids, whether a text is encoded so or not; a few beyond the vocabulary, as padded models give them."""
    return st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=40)


def in_chunks(ids: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    chunks, at, turn = [], 0, 0
    while at < len(ids):
        size = sizes[turn % len(sizes)]
        chunks.append(ids[at : at + size])
        at, turn = at + size, turn + 1
    return chunks


chunk_sizes = st.lists(st.integers(1, 7), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", WITH_JSON)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(text=texts)
def test_texts_are_encoded_as_transformers_encodes_them(world: World, kind: str, text: str) -> None:
    ids = world.theirs[kind].encode(text, add_special_tokens=False)
    assert world.ours[kind].encode(text) == ids


@pytest.mark.parametrize("kind", FROM_MODEL)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(text=texts)
def test_a_tokenizer_model_encodes_and_decodes_as_the_sentencepiece_library(world: World, kind: str, text: str) -> None:
    ours, library = world.ours[kind], world.library[kind]
    assert ours.encode(text, special=False) == library.encode(text)
    ids = [token_id for token_id in library.encode(text) if token_id != library.unk_id()]
    assert ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(text=texts)
def test_what_is_decoded_is_what_was_encoded(world: World, kind: str, text: str) -> None:
    ours = world.ours[kind]
    if "▁" in text and kind != "byte-level":
        text = text.replace("▁", " ")  # the character that stands for a space cannot be told from one
    assert ours.decode(ours.encode(text, special=False)) == text


@pytest.mark.parametrize("kind", WITH_JSON)
@settings(max_examples=thoroughness.count(16, 80), deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_random_ids_are_decoded_as_transformers_decodes_them(
    world: World, kind: str, data: st.DataObject, skip: bool
) -> None:
    """But for bytes that are no UTF-8, of which there may be more or fewer replacement characters: the library's
    ByteFallback gives one for each byte of a run, valid ones too, which nobody can know before the run has ended."""
    ours, theirs = world.ours[kind], world.theirs[kind]
    ids = data.draw(st.lists(st.integers(0, len(theirs) - 1), max_size=40))
    ids = [token_id for token_id in ids if token_id != ours.token_id("né")]  # see the next test
    expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    if kind == "byte-level" or REPLACEMENT not in expected:
        assert ours.decode(ids, skip_special=skip) == expected


def test_an_added_token_stands_for_itself_where_the_library_breaks_it(world: World) -> None:
    ids = world.ours["byte-level"].encode("né")
    assert ids == [world.ours["byte-level"].token_id("né")]
    assert world.theirs["byte-level"].decode(ids) == f"n{REPLACEMENT}"
    assert world.ours["byte-level"].decode(ids) == "né"


@pytest.mark.parametrize("kind", FROM_MODEL)
@settings(max_examples=thoroughness.count(16, 80), deadline=None)
@given(data=st.data())
def test_random_ids_are_decoded_as_the_sentencepiece_library_decodes_them(
    world: World, kind: str, data: st.DataObject
) -> None:
    """A run of replacement characters counts as one: the library gives one for each byte, we one for each character."""
    ours, library = world.ours[kind], world.library[kind]
    normal = [one for one in range(len(library)) if not library.is_control(one) and not library.is_unknown(one)]
    ids = data.draw(st.lists(st.sampled_from(normal), max_size=40))
    runs = re.compile(f"{REPLACEMENT}+")
    assert runs.sub(REPLACEMENT, ours.decode(ids)) == runs.sub(REPLACEMENT, library.decode(ids))


@pytest.mark.parametrize("kind", [kind for kind in FROM_MODEL if kind != "sentencepiece-nfkc"])  # it has no bytes
def test_a_byte_that_is_a_space_stays_at_the_start(world: World, kind: str) -> None:
    ours, library = world.ours[kind], world.library[kind]
    byte, space = library.piece_to_id("<0x20>"), library.piece_to_id("\u2581")
    for ids in ([byte], [byte, space], [space, byte], [byte, byte]):
        assert ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=thoroughness.count(16, 80), deadline=None)
@given(data=st.data(), sizes=chunk_sizes, skip=st.booleans())
def test_chunks_of_random_ids_are_the_whole_text_and_whole_characters(
    world: World, kind: str, data: st.DataObject, sizes: list[int], skip: bool
) -> None:
    ours = world.ours[kind]
    ids = data.draw(random_ids(ours))
    detokenizer = Detokenizer(ours, skip_special=skip)
    pushed = [detokenizer.push(chunk) for chunk in in_chunks(ids, sizes)]
    rest = detokenizer.flush()
    whole = ours.decode(ids, skip_special=skip)
    assert "".join(pushed) + rest == whole
    whole.encode()  # raises for half of a surrogate pair
    assert rest in ("", REPLACEMENT), "only an unfinished character is held back"
    at = 0
    for part in pushed:
        assert whole.startswith(part, at)
        at += len(part)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(data=st.data())
def test_rewinds_leave_no_trace(world: World, kind: str, data: st.DataObject) -> None:
    """Pushes and rewinds in any order: at each moment the text is that of the ids that are left."""
    ours = world.ours[kind]
    detokenizer = Detokenizer(ours, skip_special=False)
    ids: list[int] = []
    texts: list[str] = []
    for _ in range(data.draw(st.integers(1, 6))):
        for token_id in data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=8)):
            ids.append(token_id)
            texts.append(detokenizer.push([token_id]))
        num_back = data.draw(st.integers(0, len(ids)))
        detokenizer.rewind(num_back)
        del ids[len(ids) - num_back :], texts[len(texts) - num_back :]
        assert detokenizer.num_tokens == len(ids)
    assert "".join(texts) + detokenizer.flush() == ours.decode(ids)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(data=st.data(), text=texts)
def test_a_reply_reads_on_from_its_prompt(world: World, kind: str, data: st.DataObject, text: str) -> None:
    """Prompt and reply in one piece decode to the prompt's text and then the reply's: no leading space is lost."""
    ours = world.ours[kind]
    ids = [token for token in ours.encode(text, special=False) if token not in ours.special_ids]
    cut = data.draw(st.integers(0, min(len(ids), 16)))
    prompt = ours.decode(ids[:cut])
    assume(prompt and not prompt.endswith(REPLACEMENT))
    reply = ReplyText(ours, ids[:cut], StopStrings(()))
    for token in ids[cut:]:
        reply.push(token)
    reply.finish()
    assert prompt + reply.between(0, len(ids) - cut) == ours.decode(ids)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(first=texts, second=texts)
def test_a_text_that_goes_on_gets_no_space_of_its_own(world: World, kind: str, first: str, second: str) -> None:
    ours = world.ours[kind]
    assume(kind == "byte-level" or "▁" not in first + second)
    head = ours.encode(first, special=False)
    ids = head + (ours.encode_after(head, second, special=False) if head else ours.encode(second, special=False))
    assert ours.decode(ids) == first + second


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(text=texts)
def test_text_that_is_not_trusted_never_gives_a_special_token(world: World, kind: str, text: str) -> None:
    ours = world.ours[kind]
    unknown = ours.token_id("<unk>")
    for ids in (ours.encode(text, special=False), ours.encode(ours.shield(text))):
        assert ours.special_ids.isdisjoint(ids) or {*ids} & ours.special_ids == {unknown}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "words"])
@settings(max_examples=thoroughness.count(10, 50), deadline=None)
@given(before=texts, after=texts)
def test_a_shield_changes_nothing_around_it(world: World, kind: str, before: str, after: str) -> None:
    """The tokens of real special tokens and of the text between them are those of a text without a shield."""
    ours = world.ours[kind]
    plain = f"<s>{before}</s>{after}<s>"
    shielded = ours.encode(plain + ours.shield("</s>"))
    assert shielded[: len(ours.encode(plain))] == ours.encode(plain)


class TestTokenizerModel:
    def test_added_tokens_of_the_other_files(self, tmp_path: Path) -> None:
        folder = tokenizers_of.write(tmp_path, "sentencepiece-bpe")
        size = Tokenizer.load(folder).vocab_size
        (folder / "added_tokens.json").write_text(json.dumps({"<tool>": size, "<|user|>": size + 1}))
        config = {
            "eos_token": {"content": "</s>"},
            "added_tokens_decoder": {str(size + 1): {"content": "<|user|>", "special": True, "rstrip": True}},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = Tokenizer.load(folder)
        assert (tokenizer.token_id("<tool>"), tokenizer.token_id("<|user|>")) == (size, size + 1)
        assert tokenizer.special_ids == {0, 1, 2, size + 1}
        assert tokenizer.decode(tokenizer.encode("<|user|>  hello")) == "<|user|> hello", "its rstrip holds"

    def test_an_added_token_that_cannot_have_its_id(self, tmp_path: Path) -> None:
        folder = tokenizers_of.write(tmp_path, "sentencepiece-bpe")
        (folder / "added_tokens.json").write_text(json.dumps({"<tool>": 7000}))
        with pytest.raises(ModelError, match="added token '<tool>' has the id 7000") as refused:
            Tokenizer.load(folder)
        assert "save_pretrained" in refused.value.hint

    @pytest.mark.parametrize(
        "content", [b"", b"IQ== 0\nIg== 1\n", b"\x0a\x05abc", b"\x0b\x0a", b"\x0a\x02\x12\x00" + b"\xff" * 12]
    )
    def test_a_file_that_is_something_else(self, tmp_path: Path, content: bytes) -> None:
        """Such as Llama 3's own, which is a list of base64."""
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(ModelError, match=r"tokenizer\.model is not a SentencePiece model") as refused:
            Tokenizer.load(tmp_path)
        assert "save_pretrained" in refused.value.hint

    @pytest.mark.parametrize("kind", ["word", "char"])
    def test_kinds_that_are_refused(self, tmp_path: Path, kind: str) -> None:
        model = tokenizers_of.train_sentencepiece(kind, vocab_size=60, byte_fallback=False)
        (tmp_path / "tokenizer.model").write_bytes(model)
        with pytest.raises(Unsupported, match="supported: unigram"):
            Tokenizer.load(tmp_path)
