"""The core of a fake model in milliseconds: what every one of them needs is read once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pie_engine.config import ModelSection, Paths, SchedulingSection
from pie_engine.core.load import detail_of
from pie_engine.core.loop import Core
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.store.contexts import SavedContexts


def load_fake(
    section: ModelSection, paths: Paths, script: FakeScript | None, scheduling: SchedulingSection
) -> tuple[Core, dict[str, object]]:
    """As `core.load.load_core`, of the model whose tokenizer is in `section.path`."""
    tokenizer = _tokenizer(section.path)
    if script is None and section.script:
        script = FakeScript.read(section.script)
    driver = FakeDriver(tokenizer, script, page_size=section.page_size)
    core = Core(driver, tokenizer, section, saved=SavedContexts(paths.saved_contexts), scheduling=scheduling)
    return core, detail_of(core, section, Path(section.path), driver.capabilities)


@lru_cache(maxsize=8)
def _tokenizer(folder: str) -> Tokenizer:
    return Tokenizer.load(folder)
