"""Are the configured models where the configuration says?"""

from __future__ import annotations

from pathlib import Path

from pie_cli.checks.finding import Finding
from pie_engine.config import EngineConfig, ModelSection

SHIPPED = "pie-tiny"
INCOMPLETE = "download the whole checkpoint"


def check(config: EngineConfig) -> list[Finding]:
    return [_model(section) for section in config.models]


def _model(section: ModelSection) -> Finding:
    path = Path(section.path).expanduser()
    if section.driver == "fake" or section.path == SHIPPED:
        return Finding("model", "ok", f"model {section.label} ({section.driver})")
    if path.is_dir():
        return _folder(section, path)
    if section.path.count("/") == 1 and not section.path.startswith((".", "~", "/")):
        return Finding("model", "note", f"model {section.path} is looked up in the local hub cache when it is loaded")
    fix = "correct `path` in config.toml, or `pie serve --model FOLDER`"
    return Finding("model", "problem", f"the model folder {path} does not exist", fix)


def _folder(section: ModelSection, path: Path) -> Finding:
    if not (path / "config.json").exists():
        return Finding("model", "problem", f"{path} holds no config.json", INCOMPLETE)
    if not any(path.glob("*.safetensors")):
        return Finding("model", "problem", f"{path} holds no safetensors file", INCOMPLETE)
    return Finding("model", "ok", f"model {section.label} ({section.driver}) in {path}")
