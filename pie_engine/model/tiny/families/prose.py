"""Plain texts without chat roles: descriptions of people, places and days."""

from __future__ import annotations

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example

PERSON = (
    "{n} is a {j} and lives in {c}.",
    "Every morning, {n} drinks {d} and reads the news.",
    "{n} has a {p} and likes {h}.",
    "On the weekend, {n} visits a friend in {e}.",
    "{n} wears a {o} coat when it is cold.",
    "The work of a {j} is not easy, but {n} likes it.",
    "In the evening, {n} goes home and cooks {f}.",
    "{n} wants to travel to {e} next year.",
)
TOWN = (
    "{c} is a small town near a river.",
    "In the middle of {c} there is a market where people sell {f} and {g}.",
    "The oldest house in {c} is {o}.",
    "Many people in {c} like {h}.",
    "A train goes from {c} to {e} every hour.",
    "In winter it is cold in {c}, and in summer it is warm.",
    "{n} was born in {c} and works there as a {j}.",
    "Visitors come to {c} to see the {o} tower.",
)


def description(draw: Draw) -> Example:
    text, _ = described(draw)
    return Example("prose", text=text)


def described(draw: Draw) -> tuple[str, str]:
    """A text about a person or a town, and in a few words what it is about."""
    foods = draw.sample(words.CATEGORIES[("food", "foods")], 2)
    slots = {
        "n": draw.person(),
        "c": draw.place(),
        "e": draw.place(),
        "j": draw.pick([job for job in words.JOBS if job[0] not in "aeiou"]),
        "d": draw.pick(words.CATEGORIES[("drink", "drinks")]),
        "p": draw.pick(words.PETS),
        "h": draw.pick(words.HOBBIES),
        "o": draw.pick([colour for colour in words.COLOURS if colour != "orange"]),
        "f": foods[0],
        "g": foods[1],
    }
    sentences, topic = draw.pick(((PERSON, "{n}, a {j} in {c}"), (TOWN, "the town of {c}")))
    chosen = [sentences[0], *draw.sample(sentences[1:], draw.integer(2, len(sentences) - 1))]
    return " ".join(sentence.format(**slots) for sentence in chosen), topic.format(**slots)
