"""Writes the documentation pages that come from the code, or checks that they are up to date (`--check`)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from msgspec import inspect
from performance import performance_page

from pie_engine import config
from pie_engine.config_check import allowed

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "pie_engine" / "config.py"
HEADINGS = {
    "EngineConfig": "Top level",
    "ModelSection": "`[[models]]`",
    "HostSection": "`[host]`",
    "GatewaySection": "`[gateway]`",
}
INTRO = """# Configuration

From `config.toml` in the user's configuration folder (`PIE_CONFIG` names another file), then `PIE_HOME`, `PIE_CACHE`
and `PIE_LOG_LEVEL`, then what the command line gives. An unknown key is an error that names the nearest known one; a
value that is not allowed is an error that says what is.

```toml
[[models]]
path = "/models/my-llama"
kv_memory_mb = 4096

[host]
num_hosts = 2
```
"""


def configuration_page() -> str:
    """docs/configuration.md from the classes of config.py: each field with its default, range and docstring."""
    tree = ast.parse(CONFIG.read_text("utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return INTRO + "".join(_table(HEADINGS[name], classes[name]) for name in HEADINGS)


def _table(heading: str, node: ast.ClassDef) -> str:
    lines = [f"\n## {heading}", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
    ranges = _ranges(node.name)
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or field.value is None:
            continue
        key = ast.unparse(field.target)
        lines.append(f"| `{key}` | {_default(field.value)} | {ranges[key]} | {_doc(following)} |")
    return "\n".join(lines) + "\n"


def _ranges(name: str) -> dict[str, str]:
    section = inspect.type_info(getattr(config, name))
    assert isinstance(section, inspect.StructType)
    return {field.name: allowed(field.type) for field in section.fields}


def _default(value: ast.expr) -> str:
    return f"`{ast.unparse(value)}`" if isinstance(value, ast.Constant) else ""


def _doc(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _module_output(module: str, *args: str) -> str:
    command = [sys.executable, "-m", module, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def pages() -> dict[Path, str]:
    """Every generated page with what it should hold."""
    return {
        ROOT / "docs" / "configuration.md": configuration_page(),
        ROOT / "docs" / "cli.md": _module_output("pie_cli.docs"),
        ROOT / "docs" / "errors.md": _module_output("pie_cli.docs", "errors"),
        ROOT / "docs" / "performance.md": performance_page(),
    }


def main() -> int:
    is_check = "--check" in sys.argv
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    if is_check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"out of date: {names}\nhint: make docs", file=sys.stderr)
        return 1
    for path in stale:
        path.write_text(pages()[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
