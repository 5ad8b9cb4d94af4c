"""Chat templates render as Transformers renders them; broken ones say what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from pie_engine.errors import InvalidInput, ModelError, Unsupported
from pie_engine.model.chat import ChatTemplate
from tests import models

CHATML = """{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """{{- bos_token }}
{%- if tools %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nEnvironment: ipython\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant', 'tool') %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
    {%- if 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {{- '{"name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + '}' }}
        {%- endfor %}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- generation %}{{ message['content'] | trim }}{% endgeneration %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

LOOPS = """{% for message in messages %}
    {% if loop.index > 3 %}
        {% break %}
    {% endif %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
[{{ message.role }}] {{ message | tojson }}{{ eos_token }}
{% endfor %}
{% if enable_thinking is defined and enable_thinking %}
<think>
{% endif %}
"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "loops": LOOPS}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "What's it like <there> & when? ☀",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = {"function": {"name": "weather", "arguments": {"city": "Köln"}}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be <b>brief</b> & kind. "}, {"role": "user", "content": "  日本語?\n"}],
    [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": "Thanks"},
    ],
]


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_it_renders_as_transformers_does(
    tmp_path: Path, name: str, conversation: list[dict[str, Any]], tools: Any, add_generation_prompt: bool
) -> None:
    folder = models.write_tokenizer(tmp_path, chat_template=TEMPLATES[name])
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for variables in ({}, {"enable_thinking": True}):
        expected = reference.apply_chat_template(
            conversation, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False, **variables
        )
        rendered = ChatTemplate.load(folder).render(conversation, tools, add_generation_prompt, **variables)
        assert rendered == expected
        assert rendered


def write(folder: Path, template: Any) -> ChatTemplate:
    return ChatTemplate.load(models.write_tokenizer(folder, chat_template=template))


def test_named_templates(tmp_path: Path) -> None:
    chat = write(
        tmp_path, [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }}"}]
    )
    assert chat.render([]) == "plain"
    assert chat.render([], tools=TOOLS) == "1"


def test_a_template_file_wins(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("from the file: {{ messages[0].content }}")
    assert write(tmp_path, "from the config").render(CONVERSATIONS[0]) == "from the file: Hi"


def test_additional_template_files(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    chat = write(tmp_path, "plain")
    assert (chat.render([]), chat.render([], tools=TOOLS)) == ("plain", "with tools")


def test_special_tokens_may_be_objects(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>", "bos_token": "overridden"}))
    folder = models.write_tokenizer(
        tmp_path, chat_template="{{ bos_token }}{{ pad_token }}", bos_token={"content": "<s>", "lstrip": False}
    )
    assert ChatTemplate.load(folder).render([]) == "<s><pad>"


def test_the_date_is_at_hand(tmp_path: Path) -> None:
    assert write(tmp_path, "{{ strftime_now('%Y') }}").render([]).isdigit()


def test_a_base_model_has_no_template(tmp_path: Path) -> None:
    chat = ChatTemplate.load(models.write_tokenizer(tmp_path))
    assert not chat.is_present
    with pytest.raises(Unsupported, match="has no chat template") as refused:
        chat.render(CONVERSATIONS[0])
    assert "plain text" in refused.value.hint
    assert '`chat_template = "FILE"`' in refused.value.hint


def test_only_other_templates(tmp_path: Path) -> None:
    chat = write(tmp_path, [{"name": "rag", "template": "x"}])
    with pytest.raises(Unsupported, match="no default chat template") as refused:
        chat.render(CONVERSATIONS[0])
    assert "rag" in refused.value.hint


def test_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="syntax error in line 2"):
        write(tmp_path, "fine\n{% if %}")


@pytest.mark.parametrize("template", [3, [{"name": "default"}], [1]])
def test_a_template_of_a_wrong_kind(tmp_path: Path, template: Any) -> None:
    with pytest.raises(ModelError, match="chat_template is neither"):
        write(tmp_path, template)


def test_what_the_template_refuses_reaches_the_user(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="refuses these messages: unknown role robot"):
        write(tmp_path, LLAMA3).render([{"role": "robot", "content": "x"}])


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content + 1 }}", "{{ messages[0].nothing.at_all }}", "{{ ''.__class__.__mro__ }}"]
)
def test_a_template_that_fails_or_tries_to_escape(tmp_path: Path, template: str) -> None:
    with pytest.raises(InvalidInput, match="failed"):
        write(tmp_path, template).render(CONVERSATIONS[0])


def test_messages_cannot_be_changed_by_a_template(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="SecurityError"):
        write(tmp_path, "{{ messages.append(1) }}").render(CONVERSATIONS[0])
