"""Chat templates: messages to the prompt text that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pie_engine.errors import InvalidInput, ModelError, Unsupported
from pie_engine.model.config import read_json
from pie_engine.model.tokenizer import read_special_tokens

_NO_TEMPLATE_HINT = (
    "it is a base model: write the prompt as plain text, use an instruct model, "
    'or give it a template with `chat_template = "FILE"` under `[[models]]` in the configuration'
)


class ChatTemplate:
    """A checkpoint's Jinja templates, in the environment that Hugging Face renders them in."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str], *, where: str = "model") -> None:
        self._where = where
        self._special_tokens = dict(special_tokens)
        self._templates = {name: self._compile(source) for name, source in sources.items()}

    @classmethod
    def load(cls, folder: str | Path, file: str | Path = "") -> ChatTemplate:
        """Read `chat_template.jinja` or `tokenizer_config.json`, or a Jinja `file` instead of them.

        A model without a template loads; `render` refuses. Raises `ModelError` for a template that cannot be read.
        """
        folder = Path(folder)
        sources = {"default": _read_text(Path(file).expanduser())} if file else _read_sources(folder)
        return cls(sources, read_special_tokens(folder), where=str(file or folder))

    @property
    def is_present(self) -> bool:
        return bool(self._templates)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for `messages` (`{"role": …, "content": …}`); further `variables` reach the template as they are.

        Raises `Unsupported` without a template, `InvalidInput` when the template refuses the messages.
        """
        template = self._pick(has_tools=bool(tools))
        known = {"messages": messages, "tools": tools or None, "documents": None}
        try:
            return template.render(
                **{**self._special_tokens, **known, "add_generation_prompt": add_generation_prompt, **variables}
            )
        except _Refused as error:
            raise InvalidInput(f"the chat template refuses these messages: {error}") from error
        except Exception as error:  # a template is a program: anything can come out of it
            raise InvalidInput(
                f"the chat template of {self._where} failed: {type(error).__name__}: {error}",
                hint="each message needs a role and a content, as the template expects them",
            ) from error

    def _pick(self, *, has_tools: bool) -> jinja2.Template:
        names = ("tool_use", "default") if has_tools else ("default",)
        for name in names:
            if name in self._templates:
                return self._templates[name]
        found = ", ".join(self._templates)
        raise Unsupported(
            f"{self._where} has no {'default ' if found else ''}chat template",
            hint=f"it only has: {found}" if found else _NO_TEMPLATE_HINT,
        )

    def _compile(self, source: str) -> jinja2.Template:
        try:
            return _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"the chat template of {self._where} has a syntax error in line {error.lineno}: {error.message}",
                hint="download the model again, or mend its chat template",
            ) from error


def _read_sources(folder: Path) -> dict[str, str]:
    sources: dict[str, str] = {}
    config = folder / "tokenizer_config.json"
    if config.is_file():
        sources.update(_sources_of(read_json(config).get("chat_template"), str(config)))
    for path in [folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))]:
        if path.is_file():
            sources["default" if path.parent == folder else path.stem] = _read_text(path)
    return sources


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the chat template {path} is not readable: {error}", hint="it has to be a text file with a Jinja template"
        ) from error


def _sources_of(raw: Any, where: str) -> dict[str, str]:
    """A template is one string, or a list of named ones."""
    if raw is None:
        return {}
    if isinstance(raw, str):
        return {"default": raw}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in raw}
    except (TypeError, KeyError) as error:
        raise ModelError(f"{where}: chat_template is neither a text nor a list of named templates") from error


class _Refused(Exception):
    """A template called `raise_exception`."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}` marks the assistant's part for training; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012  (declared so by Jinja)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """Without underscored names, by which a template could get at Python's own objects."""

    def __init__(*args: Any, **values: Any) -> None:
        # Jinja's own signature: a template may name a value `self`.
        for name in dict(*args[1:], **values):
            _check_name(name)
        jinja2.utils.Namespace.__init__(*args, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have a name with an underscore: {name}")


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, it leaves `<` and `&` as they are: the text goes to a model, not to a browser."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = _Namespace
    return environment


_ENVIRONMENT = _environment()
