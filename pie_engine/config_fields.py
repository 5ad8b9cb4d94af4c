"""What the configuration has, for people: every setting with its default, what is allowed, and its docstring."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from pie_engine import config
from pie_engine.config import EngineConfig, Section
from pie_engine.config_check import allowed

TABLES = ("models", "host", "gateway", "scheduling", "telemetry")
"""The keys of the top level that are tables, in the order in which people meet them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of one section."""

    key: str
    default: Any
    allowed: str
    """The range or the choices, as Markdown; empty where anything of its type goes."""
    doc: str
    kind: inspect.Type

    @property
    def is_table(self) -> bool:
        return self.key in TABLES


def settings_of(section: type[Section]) -> list[Setting]:
    """In the order in which they stand in the code."""
    docs = _docs()[section.__name__]
    kind = inspect.type_info(section)
    assert isinstance(kind, inspect.StructType)
    return [Setting(f.name, _default(f), allowed(f.type), docs.get(f.name, ""), f.type) for f in kind.fields]


def top_settings() -> list[Setting]:
    """Those of no table."""
    return [setting for setting in settings_of(EngineConfig) if not setting.is_table]


def section_doc(section: type[Section]) -> str:
    """What a table is for, without its name in front."""
    return (section.__doc__ or "").split(": ", 1)[-1].strip()


def _default(field: inspect.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None


def _docs() -> dict[str, dict[str, str]]:
    """The text under each field; Python keeps docstrings of classes and functions only."""
    tree = ast.parse(Path(config.__file__).read_text("utf-8"))
    return {node.name: _docs_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_of(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(following, ast.Expr):
            value = following.value
            if isinstance(value, ast.Constant):
                docs[ast.unparse(field.target)] = " ".join(str(value.value).split())
    return docs
