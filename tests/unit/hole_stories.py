"""Contexts with holes, windows, masks and positions on a rig, and what a reference in sets says of them."""

from __future__ import annotations

from pie_engine.driver.fake import FakeDriver
from pie_engine.protocol.to_core import Append, CreateContext, Restore
from pie_engine.store.contexts import SavedContexts
from tests.stories import Story, next_tokens
from tests.unit.core_rig import PAGE_SIZE, Rig

MODEL = "test-model"
PROMPT = [7 * i % 256 for i in range(40)]


def expected(rig: Rig, story: Story, num_prompt: int) -> list[int | None]:
    """What a plan gives behind `num_prompt` tokens, of which the others of the story are the first."""

    def driver(num_tokens: int) -> FakeDriver:
        made = FakeDriver(rig.tokenizer, rig.script, page_size=PAGE_SIZE)
        made.allocate_kv(num_tokens)
        return made

    return next_tokens(story, num_prompt, driver, PAGE_SIZE)


def created(rig: Rig, tokens: list[int]) -> tuple[int, Story]:
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, "p1", 1), Append(ctx, tokens))
    return ctx, Story(tokens)


def reply(rig: Rig, ctx: int, story: Story, max_tokens: int, **fields: object) -> list[int]:
    """Generate, and check every token."""
    op = rig.generate(ctx, max_tokens=max_tokens, ignore_eos=True, **fields)
    if "window" in fields:
        story.slide(fields["window"], fields.get("sinks", 0))  # type: ignore[arg-type]
    rig.run()
    heard = rig.heard[op]
    assert heard.error is None, heard.error
    num_prompt = len(story.tokens)
    story.extend(heard.ids)
    assert heard.ids == expected(rig, story, num_prompt)[:-1]
    return heard.ids


def opened(rig: Rig, saved: SavedContexts, name: str) -> int:
    """A context from the disk, as a host makes it."""
    ctx, manifest = rig.new_id(), saved.read("", MODEL, name)
    rig.send(CreateContext(ctx, "p1", 1), Append(ctx, manifest.tokens), Restore(ctx, name, manifest.seen))
    return ctx


def runs(seen: set[int], number: int) -> list[int]:
    """The mask of token `number`, which sees `seen`, in run lengths: hidden first."""
    found, last = [0], False
    for other in range(number + 1):
        if (other in seen) != last:
            found.append(0)
            last = not last
        found[-1] += 1
    return found


def num_pages(rig: Rig, ctx: int) -> int:
    return rig.kv(ctx).num_pages
