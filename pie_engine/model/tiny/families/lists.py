"""Lists of things of one kind, and counting."""

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, user

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
REQUESTS = (
    "List {n} {kinds}.",
    "List {n} {kinds}",
    "Name {n} {kinds}.",
    "Give me {n} {kinds}.",
    "Give me a list of {n} {kinds}.",
    "Write down {n} {kinds}.",
    "Can you name {n} {kinds}?",
    "Tell me {n} {kinds}.",
    "I need {n} {kinds}.",
    "What are {n} {kinds}?",
)


def things(draw: Draw) -> Example:
    """`List three fruits.`; the request, its count and its kind together are on one side of the split."""
    (_, kinds), count, template = draw.fresh(
        lambda: (draw.pick(list(words.CATEGORIES)), draw.integer(2, 6), draw.pick(REQUESTS)),
        key=lambda choice: f"{choice[0][1]}/{choice[1]}/{choice[2]}",
    )
    items = next(items for (_, plural), items in words.CATEGORIES.items() if plural == kinds)
    count = min(count, len(items))
    chosen = draw.sample(items, count)
    number = NUMBER_WORDS[count] if draw.chance(0.7) else str(count)
    request, answer = _styled(draw, template.format(n=number, kinds=kinds), chosen)
    return Example("lists", [user(draw.casual(request)), assistant(answer)], expect={"count": count, "items": items})


def _styled(draw: Draw, request: str, items: list[str]) -> tuple[str, str]:
    roll = draw.random.random()
    if roll < 0.12:
        return f"{request} Separate them with commas.", ", ".join(items)
    if roll < 0.2:
        return f"{request} Use bullet points.", "\n".join(f"- {item}" for item in items)
    return request, "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def one_thing(draw: Draw) -> Example:
    (kind, kinds), items = draw.pick(list(words.CATEGORIES.items()))
    article = "an" if kind[0] in "aeiou" else "a"
    request = draw.pick((f"Name {article} {kind}.", f"Give me one {kind}.", f"Name one of the {kinds}."))
    return Example("lists", [user(draw.casual(request)), assistant(draw.pick(items).capitalize())])


def counting(draw: Draw) -> Example:
    first, count = draw.pick((1, 1, 1, draw.integer(1, 20))), draw.integer(3, 10)
    last = first + count - 1
    request = draw.pick((f"Count from {first} to {last}.", f"Write the numbers from {first} to {last}."))
    return Example("counting", [user(request), assistant(", ".join(str(n) for n in range(first, last + 1)))])
