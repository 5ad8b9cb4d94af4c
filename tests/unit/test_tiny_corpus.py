"""The corpus of pie-tiny is reproducible, keeps its splits apart, and is rendered as the chat template renders it."""

from __future__ import annotations

import functools
import subprocess
import sys
from itertools import islice, pairwise

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pie_engine.model.tiny import chat_format, corpus
from pie_engine.model.tiny.chat_format import tool_call_text
from pie_engine.model.tiny.draw import Draw, Example, is_held_out
from pie_engine.model.tiny.families import arithmetic, extraction

NUM_EXAMPLES = 400
TOOLS = [{"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}}]
CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the weather in <Zürich> & Paris?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "get_weather", "arguments": {"city": "Zürich"}}]},
    {"role": "tool", "content": '{"sky": "clear"}'},
    {"role": "assistant", "content": "It is clear."},
    {"role": "user", "content": "Thanks"},
]


@functools.cache
def template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = chat_format.to_json
    return environment.from_string(chat_format.CHAT_TEMPLATE)


def render(messages: list[dict], tools: list[dict] | None = None, add_generation_prompt: bool = False) -> str:
    return template().render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


def drawn(seed: int, split: str = "train") -> list[Example]:
    return list(islice(corpus.examples(seed, split), NUM_EXAMPLES))


def test_same_seed_gives_same_examples():
    assert drawn(3) == drawn(3)


def test_other_seed_or_split_gives_other_examples():
    assert drawn(3) != drawn(4)
    assert drawn(3) != drawn(3, "held_out")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_entities_belong_to_their_split(split):
    draw = Draw(1, split)
    values = [make() for _ in range(200) for make in (draw.person, draw.place, draw.code, draw.price)]
    values += [draw.number(3, 6) for _ in range(200)]
    assert {is_held_out(str(value)) for value in values} == {split == "held_out"}


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_sums_belong_to_their_split(split):
    sums = [arithmetic.sum_of(Draw(seed, split)) for seed in range(100)]
    assert {is_held_out(f"{left}{operator}{right}") for left, operator, right, _ in sums} == {split == "held_out"}


def test_expected_json_stands_in_the_answer():
    for seed in range(50):
        example = extraction.person_record(Draw(seed, "held_out"))
        assert example.messages[-1]["content"] == chat_format.to_json(example.expect["json"])


def test_every_family_yields_a_conversation_or_a_text():
    for family in corpus.ALL_FAMILIES:
        example = family(Draw(5))
        assert bool(example.messages) != bool(example.text), family
        assert not example.messages or example.messages[-1]["role"] == "assistant", family


def test_plain_rendering_equals_the_template():
    for example in drawn(11):
        if example.messages:
            rendered = "".join(segment.text for segment in chat_format.segments(example))
            assert rendered == render(example.messages, example.tools)


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:]])
def test_template_only_appends(messages, tools):
    texts = [render(messages[:count], tools) for count in range(len(messages) + 1)]
    for shorter, longer in pairwise(texts):
        assert longer.startswith(shorter)


@pytest.mark.parametrize("index", [2, 4])
def test_generated_answer_and_end_token_are_the_next_rendering(index):
    before = render(CONVERSATION[:index], TOOLS, add_generation_prompt=True)
    message = CONVERSATION[index]
    calls = "".join(tool_call_text(call["name"], call["arguments"]) for call in message.get("tool_calls", ()))
    assert before + message["content"] + calls + chat_format.END == render(CONVERSATION[: index + 1], TOOLS)


def test_template_takes_the_shapes_of_the_openai_api():
    wrapped = [{"type": "function", "function": TOOLS[0]}]
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Zürich"}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": CONVERSATION[1]["content"]}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    assert render(messages, wrapped) == render(CONVERSATION[1:3], TOOLS)


def test_corpus_does_not_import_torch():
    script = "import sys, pie_engine.model.tiny.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
