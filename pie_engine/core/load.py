"""From the configuration of a model to its core: the model, its draft model, and the memory of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pie_engine.config import MIB, ModelSection, Paths, SchedulingSection
from pie_engine.core.draft_model import DraftModel, check_same_tokens
from pie_engine.core.loop import DEFAULT_SCHEDULING, Core
from pie_engine.driver.base import Capabilities
from pie_engine.driver.create import check_memory, load_driver
from pie_engine.errors import InvalidConfig
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.store.contexts import SavedContexts


def load_core(
    section: ModelSection,
    paths: Paths,
    progress: Callable[[str], None],
    scheduling: SchedulingSection = DEFAULT_SCHEDULING,
) -> tuple[Core, dict[str, object]]:
    """The core of a model, and what the other processes have to know of it."""
    progress(f"loading {section.label}")
    folder = resolve(section.path, paths)
    _check_chat_template(section, folder)
    tokenizer = Tokenizer.load(folder)
    # First, since the number of threads of torch is the one that was set last.
    draft_model = None
    if section.draft_model:
        draft_folder = resolve(section.draft_model, paths)
        draft_model = load_draft_model(section, draft_folder, folder, tokenizer, progress)
    driver = load_driver(
        section.driver,
        folder,
        num_threads=section.num_threads,
        deterministic=section.deterministic,
        progress=progress,
        script=section.script or None,
        **_settings(section),
    )
    core = Core(
        driver,
        tokenizer,
        section,
        saved=SavedContexts(paths.saved_contexts),
        draft_model=draft_model,
        scheduling=scheduling,
    )
    core.facts.grammars.prepare()
    detail = detail_of(core, section, folder, driver.capabilities)
    if section.quantize != "none":
        detail["quantize"] = section.quantize
    if draft_model is not None:
        capabilities, num_pages = draft_model.driver.capabilities, draft_model.pool.num_pages
        detail["draft_model"] = {
            "model": section.draft_model,
            "folder": str(draft_folder),
            "weight_bytes": capabilities.weight_bytes,
            "num_pages": num_pages,
            "page_bytes": capabilities.page_bytes,
        }
    return core, detail


def load_draft_model(
    section: ModelSection, folder: Path, model: Path, tokenizer: Tokenizer, progress: Callable[[str], None]
) -> DraftModel:
    """The draft model in `folder`, for the model in folder `model`.

    Raises what loading a model raises, `InvalidConfig` when it has another tokenizer than the model, and `ModelError`
    when the two do not fit into memory together.
    """
    progress(f"loading {section.draft_model}")
    check_same_tokens(section.label, tokenizer, section.draft_model, Tokenizer.load(folder))
    settings = _draft_settings(section)
    check_memory(section.driver, model, _settings(section), folder, settings)
    driver = load_driver(
        section.driver,
        folder,
        num_threads=section.num_threads,
        progress=progress,
        script=section.script or None,
        **settings,
    )
    kv_bytes, page_bytes = section.draft_kv_memory_mb * MIB, driver.capabilities.page_bytes
    if kv_bytes < page_bytes:
        raise InvalidConfig(
            f"draft_kv_memory_mb = {section.draft_kv_memory_mb} does not hold one KV page of {page_bytes} bytes of "
            f"{section.draft_model}",
            hint="raise `draft_kv_memory_mb` of the model in the configuration",
        )
    return DraftModel(
        driver,
        num_pages=kv_bytes // page_bytes,
        max_batch_tokens=section.max_batch_tokens,
        sharing=section.prefix_cache,
    )


def _settings(section: ModelSection) -> dict[str, Any]:
    """What decides how much memory the model takes."""
    return _draft_settings(section) | {
        "max_context_tokens": section.max_context_tokens,
        "kv_bytes": section.kv_memory_mb * MIB,
        "num_pages": section.num_pages,
    }


def _draft_settings(section: ModelSection) -> dict[str, Any]:
    return {
        "dtype": section.dtype,
        "page_size": section.page_size,
        "kv_bytes": section.draft_kv_memory_mb * MIB,
        "kernels": section.kernels,
        "quantize": section.quantize,
    }


def _check_chat_template(section: ModelSection, folder: Path) -> None:
    """The hosts render it; what is wrong with one that the configuration names is told at once. Raises `ModelError`."""
    if section.chat_template:
        from pie_engine.model.chat import ChatTemplate

        ChatTemplate.load(folder, section.chat_template)


def detail_of(core: Core, section: ModelSection, folder: Path, capabilities: Capabilities) -> dict[str, object]:
    """What the other processes have to know of a core."""
    return {
        **asdict(capabilities),
        "model": section.label,
        "path": section.path,
        "folder": str(folder),
        "chat_template": section.chat_template,
        "num_pages": core.pool.num_pages,
        "num_host_pages": core.pool.tier.num_slots,
        "max_batch_tokens": section.max_batch_tokens,
        "max_batch_sequences": section.max_batch_sequences,
    }
