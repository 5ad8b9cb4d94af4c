"""Are the configured models where the configuration says?"""

from __future__ import annotations

from pie_cli.checks.finding import Finding
from pie_engine.config import EngineConfig, ModelSection
from pie_engine.errors import PieError

SHIPPED = "pie-tiny"


def check(config: EngineConfig) -> list[Finding]:
    drafts = [section for section in config.models if section.draft_model]
    return [
        *_namesakes(config),
        *(_model(section, config) for section in config.models),
        *(_draft(section, config) for section in drafts),
    ]


def _namesakes(config: EngineConfig) -> list[Finding]:
    """The daemon does not start with them."""
    labels = [section.label for section in config.models]
    fix = "give each of them its own `name` in config.toml"
    return [
        Finding("model", "problem", f"{labels.count(label)} models are called `{label}`", fix)
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]


def _model(section: ModelSection, config: EngineConfig) -> Finding:
    from pie_engine.hub.facts import read_facts
    from pie_engine.hub.places import resolve

    if section.driver == "cuda":
        message = f"model {section.label} asks for the driver `cuda`, which is not part of this version"
        return Finding("model", "problem", message, "pie config set models.driver cpu")
    if section.driver == "fake" or section.path == SHIPPED:
        return Finding("model", "ok", f"model {section.label} ({section.driver})")
    try:
        folder = resolve(section.path, config.paths)
        facts = read_facts(folder, kv_memory_mb=section.kv_memory_mb)
    except PieError as error:
        fix = "correct `path` in config.toml, or `pie serve --model FOLDER`"
        return Finding("model", "problem", error.message, fix if error.hint == "check the path" else error.hint)
    if facts.problem:
        return Finding("model", "problem", facts.problem, facts.hint)
    if facts.memory is not None and not facts.memory.fitting:
        numbers = f"{min(facts.memory.needed.values()) >> 20} MiB needed, {facts.memory.available >> 20} MiB available"
        return Finding("model", "warning", f"model {section.label} does not fit now: {numbers}", "lower `kv_memory_mb`")
    return Finding("model", "ok", f"model {section.label} ({section.driver}) in {folder}")


def _draft(section: ModelSection, config: EngineConfig) -> Finding:
    from pie_engine.hub.places import resolve

    try:
        folder = resolve(section.draft_model, config.paths)
    except PieError as error:
        fix = "correct `draft_model` in config.toml" if error.hint == "check the path" else error.hint
        return Finding("model", "problem", f"draft model of {section.label}: {error.message}", fix)
    return Finding("model", "ok", f"draft model of {section.label} in {folder}")
