"""Sentences turned into JSON objects."""

from pie_engine.model.tiny import words
from pie_engine.model.tiny.chat_format import to_json
from pie_engine.model.tiny.draw import Draw, Example, Json, assistant, user

CLAUSES = {
    "age": ("is {} years old", "is {} years old", "is {}"),
    "city": ("lives in {}", "comes from {}", "works in {}"),
    "job": ("is a {}", "works as a {}"),
    "pet": ("has a {}", "owns a {}"),
    "color": ("likes the color {}", "loves {}"),
    "hobby": ("likes {}", "enjoys {}"),
    "phone": ("has the phone number {}",),
}
REQUESTS = (
    "Turn this sentence into JSON with the keys {keys}: {sentence}",
    "Extract {keys} as JSON: {sentence}",
    "{sentence} Write this as JSON with {keys}.",
    "Give me a JSON object with {keys}. {sentence}",
    'Text: "{sentence}"\nReturn JSON with the keys {keys}.',
    "Convert to JSON ({keys}): {sentence}",
)
OPEN_REQUESTS = (
    "Turn this sentence into JSON: {sentence}",
    "Extract JSON: {sentence}",
    "Convert to JSON: {sentence}",
    "{sentence} Give me this as JSON.",
    "JSON from this text, please: {sentence}",
)


def person_record(draw: Draw) -> Example:
    fields = draw.sample(list(CLAUSES), draw.integer(1, 4))
    if draw.chance(0.4):
        fields = ["age", "city"]
    record = {"name": draw.person()} | {field: _value(draw, field) for field in fields}
    sentence = _sentence(draw, record)
    wanted = dict(record)
    if draw.chance(0.65):
        keys = draw.sample(list(record), draw.integer(max(1, len(record) - 1), len(record)))
        wanted = {key: record[key] for key in keys}
        request = draw.pick(REQUESTS).format(keys=_joined(keys), sentence=sentence)
    else:
        request = draw.pick(OPEN_REQUESTS).format(sentence=sentence)
    return Example("json", [user(request), assistant(to_json(wanted))], expect={"json": wanted})


def product_record(draw: Draw) -> Example:
    item, color, price, count = draw.pick(words.OBJECTS), draw.pick(words.COLOURS), draw.price(), draw.number(1, 3)
    forms = (
        (f"The {color} {item} costs {price} dollars.", {"item": item, "color": color, "price": float(price)}),
        (f"We sold {count} of the {item} at {price} each.", {"item": item, "count": count, "price": float(price)}),
        (f"I want {count} {color} items of type {item}.", {"item": item, "color": color, "count": count}),
    )
    sentence, record = draw.pick(forms)
    request = draw.pick(REQUESTS).format(keys=_joined(list(record)), sentence=sentence)
    return Example("json", [user(request), assistant(to_json(record))], expect={"json": record})


def random_record(draw: Draw) -> Example:
    """Keys and values without meaning: only copying helps."""
    keys = draw.distinct(lambda: draw.invented(1, 2).lower(), draw.integer(1, 3))
    record = {key: draw.value() for key in keys}
    listing = draw.pick((", ", "; ", "\n")).join(
        f"{key}{draw.pick((': ', ' = ', ' is '))}{record[key]}" for key in keys
    )
    request = draw.pick(("Write this as JSON: {}", "Turn this into JSON: {}", "JSON please: {}")).format(listing)
    return Example("json", [user(request), assistant(to_json(record))], expect={"json": record})


def _value(draw: Draw, field: str) -> str | int:
    tables = {"job": words.JOBS, "pet": words.PETS, "color": words.COLOURS, "hobby": words.HOBBIES}
    if field == "age":
        return draw.integer(2, 99)
    if field == "city":
        return draw.place()
    if field == "phone":
        return str(draw.number(5, 7))
    return draw.pick(tables[field])


def _sentence(draw: Draw, record: Json) -> str:
    name, *fields = record
    clauses = [draw.pick(CLAUSES[field]).format(record[field]) for field in fields]
    if len(clauses) > 1 and draw.chance(0.4):
        return f"{record[name]} {clauses[0]}. {record[name]} {_joined(clauses[1:])}."
    return f"{record[name]} {_joined(clauses)}."


def _joined(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
