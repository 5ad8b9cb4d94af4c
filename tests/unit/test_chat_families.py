"""The templates of the common families, in their published structure: as Transformers renders them, and as written.

The files in `tests/chat_templates` have the structure of the published ones in words of our own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jinja2
import pytest
import transformers

from pie_engine.config import ModelSection, Paths
from pie_engine.core.load import load_core
from pie_engine.errors import InvalidInput, ModelError
from pie_engine.host.models import HostModel
from pie_engine.model.chat import ChatTemplate
from tests import models

TEMPLATES = {path.stem: path for path in (Path(__file__).parents[1] / "chat_templates").glob("*.jinja")}
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": " Hi & <b>you</b>"},
    {"role": "assistant", "content": "Hello! "},
    {"role": "user", "content": "日本語?"},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
CALLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "sunny"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "What is it like & where?",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
EXPECTED = {
    "llama-3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 01 May 2025\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi & <b>you</b><|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n日本語?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "qwen-2.5": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi & <b>you</b><|im_end|>\n"
        "<|im_start|>assistant\nHello! <|im_end|>\n<|im_start|>user\n日本語?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "mistral": "<s>[INST]  Hi & <b>you</b>[/INST] Hello!</s>[INST] Be brief.\n\n日本語?[/INST]",
    "gemma": (
        "<s><start_of_turn>user\nHi & <b>you</b><end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\n日本語?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "phi": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi & <b>you</b><|end|>\n<|assistant|>\nHello! <|end|>\n"
        "<|user|>\n日本語?<|end|>\n<|assistant|>\n"
    ),
}


def folder_of(tmp_path: Path, name: str) -> Path:
    models.write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[name].read_text("utf-8"), "utf-8")
    return tmp_path


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_published_form(tmp_path: Path, name: str) -> None:
    messages = TURNS if name == "gemma" else [SYSTEM, *TURNS]
    chat = ChatTemplate.load(folder_of(tmp_path, name))
    assert chat.render(messages, date_string="01 May 2025") == EXPECTED[name]


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("messages", [TURNS, [SYSTEM, *TURNS], CALLS, TURNS[:1] * 2], ids=range(4))
@pytest.mark.parametrize("name", TEMPLATES)
def test_it_renders_or_refuses_as_transformers_does(
    tmp_path: Path, name: str, messages: list[dict[str, Any]], tools: Any, add_generation_prompt: bool
) -> None:
    folder = folder_of(tmp_path, name)
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    settings = {"date_string": "01 May 2025"}

    ours, theirs = None, None
    with contextlib.suppress(InvalidInput):
        ours = ChatTemplate.load(folder).render(messages, tools, add_generation_prompt, **settings)
    with contextlib.suppress(jinja2.TemplateError):
        theirs = reference.apply_chat_template(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False, **settings
        )
    assert ours == theirs


def test_a_refusal_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="refuses these messages: System role not supported"):
        ChatTemplate.load(folder_of(tmp_path, "gemma")).render([SYSTEM, *TURNS])


def test_todays_date_is_there_without_being_given(tmp_path: Path) -> None:
    assert "Today Date: " in ChatTemplate.load(folder_of(tmp_path, "llama-3")).render(TURNS)


class TestTheOneOfTheConfiguration:
    def test_it_is_used_instead_of_the_checkpoints_own(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path / "model", "llama-3")
        (tmp_path / "mine.jinja").write_text("{{ bos_token }}mine: {{ messages[0].content }}")
        chat = ChatTemplate.load(folder, tmp_path / "mine.jinja")
        assert chat.render([SYSTEM]) == "<s>mine: Be brief."

    def test_core_and_hosts_take_it_from_the_configuration(self, tmp_path: Path) -> None:
        folder, mine = folder_of(tmp_path / "model", "llama-3"), tmp_path / "mine.jinja"
        section = ModelSection(path=str(folder), name="m", driver="fake", num_pages=4, chat_template=str(mine))
        with pytest.raises(ModelError, match=r"mine\.jinja is not readable"):
            load_core(section, Paths(tmp_path, tmp_path), lambda text: None)
        mine.write_text("mine: {{ messages[0].content }}")
        _, detail = load_core(section, Paths(tmp_path, tmp_path), lambda text: None)
        assert HostModel.of_detail(detail).render_chat([SYSTEM], None, True) == "mine: Be brief."

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_one_that_cannot_be_read_is_named(self, tmp_path: Path, content: bytes | None) -> None:
        file = tmp_path / "mine.jinja"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ModelError, match=r"mine\.jinja is not readable"):
            ChatTemplate.load(tmp_path, file)

    def test_a_mistake_in_it_is_told_with_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "mine.jinja").write_text("fine\n{% if %}")
        with pytest.raises(ModelError, match=r"mine\.jinja has a syntax error in line 2"):
            ChatTemplate.load(tmp_path, tmp_path / "mine.jinja")


@pytest.mark.parametrize(
    "template", ["{% set ns = namespace(_x=1) %}", "{% set ns = namespace() %}{% set ns.__class__ = 1 %}"]
)
def test_a_namespace_gives_no_way_out_of_the_sandbox(tmp_path: Path, template: str) -> None:
    (tmp_path / "t.jinja").write_text(template)
    with pytest.raises(InvalidInput, match="SecurityError"):
        ChatTemplate.load(tmp_path, tmp_path / "t.jinja").render(TURNS)
