"""The shipped weights of pie-tiny load, follow the chat format and pass thresholds on a few held-out prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer

from pie_engine.model.tiny import WEIGHTS_DIR, evaluate
from pie_engine.model.tiny.chat_format import prompt_text
from pie_engine.model.tiny.draw import system, user
from pie_engine.model.tiny.generation import Generator
from pie_engine.model.tiny.tokenizer import MAX_POSITIONS
from pie_engine.model.tiny.words import DEFAULT_SYSTEM_PROMPT

MAX_FOLDER_BYTES = 12_000_000
NUM_PROMPTS = 10
# Well under the percentages in the README: a small sample varies.
MIN_PERCENT = {"format": 90, "tool_call": 50, "tool_answer": 70, "copy": 45, "json": 35, "react": 50, "story": 70}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(WEIGHTS_DIR)


@pytest.fixture(scope="module")
def scores(generator) -> Iterator[dict[str, evaluate.Score]]:
    # The matrices are too small for two threads to pay, least of all on a busy machine.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    evaluation = evaluate.Evaluation(generator, NUM_PROMPTS)
    evaluation.run()
    yield evaluation.scores
    torch.set_num_threads(num_threads)


def test_folder_is_small():
    assert sum(path.stat().st_size for path in WEIGHTS_DIR.iterdir()) <= MAX_FOLDER_BYTES


def test_config_names_the_end_token():
    tokenizer = Tokenizer.from_file(str(WEIGHTS_DIR / "tokenizer.json"))
    config = json.loads((WEIGHTS_DIR / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == MAX_POSITIONS
    assert config["vocab_size"] == tokenizer.get_vocab_size()
    assert tokenizer.id_to_token(config["eos_token_id"]) == "<|end|>"


@pytest.mark.parametrize(
    "text", ["Grüße, 東京! 🎉\n\t a  b", "x" * 50, "don't  \r\n\u0000 e\u0301 ١٢", "<tool_call>{}</tool_call>"]
)
def test_tokenizer_round_trips_any_text(text):
    tokenizer = Tokenizer.from_file(str(WEIGHTS_DIR / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_knows_the_capital_of_france(generator):
    question = user("What is the capital of France?")
    prompts = [prompt_text(messages, []) for messages in ([question], [system(DEFAULT_SYSTEM_PROMPT), question])]
    for answer in generator.complete(prompts, max_tokens=32):
        assert "Paris" in answer.text
        assert answer.has_ended


@pytest.mark.parametrize("name", MIN_PERCENT)
def test_scores_on_held_out_prompts(scores, name):
    assert scores[name].percent >= MIN_PERCENT[name]
