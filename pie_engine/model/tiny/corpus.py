"""The corpus of pie-tiny: an endless, seeded stream of examples from all text families.

Nothing is read from disk. Held-out examples differ from training examples by construction: names, places, codes and
numbers of three digits and more, and the combinations in sums, lists and stories, belong to one split only
(see `draw.is_held_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, Split, system
from pie_engine.model.tiny.families import (
    arithmetic,
    chat,
    context,
    everyday,
    extraction,
    lists,
    prose,
    react,
    stories,
    tools,
)

Family = Callable[[Draw], Example]

# Exchanges that may stand alone or follow one another in a longer conversation.
EXCHANGES: dict[Family, float] = {
    chat.greeting: 3,
    chat.scripted: 6,
    chat.capital: 4,
    chat.knowledge: 6,
    chat.opinion: 1.5,
    chat.advice: 2,
    chat.joke: 0.7,
    chat.haiku: 1.5,
    chat.unknown: 4,
    chat.sentiment: 1.5,
    arithmetic.bare: 5,
    arithmetic.in_words: 4,
    arithmetic.comparison: 1,
    lists.things: 5,
    lists.one_thing: 1,
    lists.counting: 1,
    extraction.person_record: 8,
    extraction.product_record: 2,
    extraction.random_record: 2,
    context.facts_in_user: 14,
    context.many_questions: 14,
    context.table: 3,
    context.passages: 3,
    context.introduction: 5,
    context.repeat: 9,
    everyday.completion: 1,
    everyday.translation: 1,
    everyday.remark: 2.5,
    everyday.mail: 1,
    everyday.choice: 1.5,
    everyday.text_summary: 1,
    stories.story: 7,
    stories.continuation: 1,
    stories.summary: 1.5,
    stories.title: 0.5,
}
# Examples that bring their own system block, tools or plain text.
STANDALONE: dict[Family, float] = {
    context.facts_in_system: 9,
    context.long_passage: 3,
    context.persona: 3,
    tools.single_call: 20,
    tools.many_calls: 24,
    tools.calls_with_answers: 12,
    tools.no_call: 2,
    react.trace: 9,
    react.turns: 3,
    stories.plain_story: 2,
    prose.description: 3,
}
ALL_FAMILIES = EXCHANGES | STANDALONE

LONG_CONVERSATION_SHARE = 0.12
MAX_EXCHANGES = 10


class _Weighted:
    """Families drawn in proportion to their weights."""

    def __init__(self, weights: dict[Family, float]) -> None:
        self._families = list(weights)
        self._cumulative = list(accumulate(weights.values()))

    def draw(self, draw: Draw) -> Example:
        family = draw.random.choices(self._families, cum_weights=self._cumulative)[0]
        return family(draw)


_ANY_EXCHANGE = _Weighted(EXCHANGES)
_ANY_FAMILY = _Weighted(ALL_FAMILIES)


def examples(seed: int, split: Split = "train") -> Iterator[Example]:
    """The endless corpus: the same seed and split give the same examples."""
    draw = Draw(seed, split)
    while True:
        if draw.chance(LONG_CONVERSATION_SHARE):
            yield conversation(draw)
        else:
            yield with_system_prompt(draw, _ANY_FAMILY.draw(draw))


def examples_of(family: Family, seed: int, split: Split = "held_out") -> Iterator[Example]:
    """The endless examples of one family, each with a system prompt or none."""
    draw = Draw(seed, split)
    while True:
        yield with_system_prompt(draw, family(draw))


def conversation(draw: Draw) -> Example:
    """Several exchanges about different things under one system prompt."""
    parts = [_ANY_EXCHANGE.draw(draw) for _ in range(draw.integer(2, MAX_EXCHANGES))]
    messages = [message for part in parts for message in part.messages]
    return with_system_prompt(draw, Example("conversation", messages))


def with_system_prompt(draw: Draw, example: Example) -> Example:
    """The example behind a common system prompt; unchanged if it has its own or none is drawn."""
    roll = draw.random.random()
    if not example.messages or example.tools or example.messages[0]["role"] == "system" or roll < 0.35:
        return example
    prompt = words.DEFAULT_SYSTEM_PROMPT if roll < 0.75 else _other_system_prompt(draw)
    return Example(example.family, [system(prompt), *example.messages], expect=example.expect)


def _other_system_prompt(draw: Draw) -> str:
    if draw.chance(0.6):
        return draw.pick(words.SYSTEM_PROMPTS)
    job, style = draw.pick(words.JOBS), draw.pick(words.STYLES)
    return draw.pick((f"You are a {job}. {style}", f"You help a {job} at work. {style}", style))
