"""Tool calls: the tools stand in the system block, the answer after the call uses the tool's result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pie_engine.model.tiny import words
from pie_engine.model.tiny.chat_format import to_json
from pie_engine.model.tiny.draw import Draw, Example, Json, assistant, system, user


@dataclass(frozen=True)
class Request:
    """A user request that one tool can serve: its text, the call's arguments, the tool's result, the final answer."""

    text: str
    arguments: Json
    result: object
    answer: str


@dataclass(frozen=True)
class Tool:
    """A kind of tool: names and descriptions it goes by, its parameters, and how to ask for it."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: dict[str, str]
    ask: Callable[[Draw], Request]

    def schema(self, draw: Draw, name: str) -> Json:
        return schema(draw, name, draw.pick(self.descriptions), self.parameters)


def schema(draw: Draw, name: str, description: str, parameters: dict[str, str]) -> Json:
    """The tool's JSON schema, in one of the shapes that people and libraries write."""
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    if draw.chance(0.15):
        properties = {key: {"type": kind, "description": f"The {key}"} for key, kind in parameters.items()}
    elif draw.chance(0.1):
        properties = {key: {"title": key.capitalize(), "type": kind} for key, kind in parameters.items()}
    body: Json = {"type": "object", "properties": properties}
    if draw.chance(0.7):
        body["required"] = list(parameters)
    tool: Json = {"name": name}
    if draw.chance(0.85):
        tool["description"] = description
    return tool | {"parameters": body}


def _weather(draw: Draw) -> Request:
    city = draw.place()
    sky, degrees = draw.pick(("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear")), draw.integer(-9, 39)
    text = draw.pick(
        (
            "What is the weather in {c}?",
            "What's the weather like in {c}?",
            "How is the weather in {c} today?",
            "Tell me the weather in {c}.",
            "Is it raining in {c}?",
            "Weather in {c}?",
        )
    ).format(c=city)
    result = draw.pick(
        (
            {"city": city, "temperature": degrees, "sky": sky},
            {"temperature": degrees, "condition": sky},
            f"{sky}, {degrees} degrees",
            f"{degrees} degrees and {sky}",
        )
    )
    return Request(text, {"city": city}, result, f"It is {sky} in {city}, with {degrees} degrees.")


def _add(draw: Draw) -> Request:
    left, right = draw.number(1, 4), draw.number(1, 4)
    text = draw.pick(
        (
            "Add {a} and {b}.",
            "What is {a} plus {b}?",
            "What is the sum of {a} and {b}?",
            "Use the tool to add {a} and {b}.",
        )
    )
    total = left + right
    return Request(
        text.format(a=left, b=right), {"a": left, "b": right}, total, f"The sum of {left} and {right} is {total}."
    )


def _multiply(draw: Draw) -> Request:
    left, right = draw.number(1, 3), draw.number(1, 3)
    text = draw.pick(("Multiply {a} by {b}.", "What is {a} times {b}?", "What is the product of {a} and {b}?"))
    product = left * right
    return Request(
        text.format(a=left, b=right), {"a": left, "b": right}, product, f"{left} times {right} is {product}."
    )


def _calculate(draw: Draw) -> Request:
    expression = f"{draw.number(1, 4)} {draw.pick('+-*/')} {draw.number(1, 4)}"
    result = draw.number(1, 6)
    text = draw.pick(("What is {e}?", "Calculate {e}.", "Use the calculator: {e}", "Compute {e}", "How much is {e}?"))
    return Request(text.format(e=expression), {"expression": expression}, result, f"{expression} = {result}")


def _search(draw: Draw) -> Request:
    topic = _topic(draw)
    result = (
        f"{topic[0].upper()}{topic[1:]} is {draw.pick(('old', 'new', 'large', 'small', 'famous', 'popular', 'rare'))}."
    )
    text = draw.pick(
        ("Search for {t}.", "Search the web for {t}.", "Find information about {t}.", "Look up {t}.", "Find {t}.")
    )
    return Request(text.format(t=topic), {"query": topic}, result, result)


def _topic(draw: Draw) -> str:
    forms: tuple[Callable[[], str], ...] = (
        draw.place,
        lambda: f"hotels in {draw.place()}",
        lambda: f"the history of {draw.place()}",
        lambda: f"{draw.pick(words.COLOURS)} {draw.pick(words.THINGS)}",
        lambda: draw.known(words.UNKNOWN_TOPICS),
        lambda: f"news about {draw.invented()}",
        draw.invented,
    )
    return draw.pick(forms)()


def _lookup(draw: Draw) -> Request:
    name, age, city = draw.person(), draw.integer(18, 90), draw.place()
    text = draw.pick(("Who is {n}?", "Look up {n}.", "Find the person {n}.", "Tell me about {n}."))
    result = {"name": name, "age": age, "city": city}
    return Request(text.format(n=name), {"name": name}, result, f"{name} is {age} years old and lives in {city}.")


def _time(draw: Draw) -> Request:
    city, clock = draw.place(), f"{draw.integer(0, 23):02d}:{draw.integer(0, 59):02d}"
    text = draw.pick(("What time is it in {c}?", "Tell me the time in {c}.", "What is the time in {c}?"))
    result = draw.pick((clock, {"time": clock}, {"city": city, "time": clock}))
    return Request(text.format(c=city), {"city": city}, result, f"It is {clock} in {city}.")


def _convert(draw: Draw) -> Request:
    units = ("dollars", "euros", "pounds", "yen", "meters", "feet", "miles", "grams", "liters", "kilometers")
    source, target = draw.sample(units, 2)
    amount, result = draw.number(1, 4), draw.number(1, 5)
    text = draw.pick(("Convert {a} {s} to {t}.", "How many {t} are {a} {s}?", "What is {a} {s} in {t}?"))
    arguments = {"amount": amount, "from": source, "to": target}
    return Request(
        text.format(a=amount, s=source, t=target), arguments, result, f"{amount} {source} are {result} {target}."
    )


def _email(draw: Draw) -> Request:
    name, body = (
        draw.person(),
        draw.pick(("hello", "I am late", "see you soon", "thank you", "happy birthday", "call me")),
    )
    text = draw.pick(("Send {n} a message: {b}", "Tell {n}: {b}", "Write to {n}: {b}"))
    return Request(
        text.format(n=name, b=body),
        {"to": name, "text": body},
        draw.pick(("sent", "ok")),
        f"I sent the message to {name}.",
    )


def _book(draw: Draw) -> Request:
    place, people = draw.invented(), draw.integer(1, 12)
    text = draw.pick(
        ("Book a table at {p} for {n} people.", "Reserve a table for {n} at {p}.", "I want a table for {n} at {p}.")
    )
    answer = f"Your table at {place} for {people} is booked."
    return Request(
        text.format(p=place, n=people),
        {"restaurant": place, "people": people},
        draw.pick(("booked", "ok", "done")),
        answer,
    )


def _light(draw: Draw) -> Request:
    room, state = (
        draw.pick(("kitchen", "bedroom", "garden", "office", "hall", "garage", "bathroom")),
        draw.pick(("on", "off")),
    )
    text = draw.pick(
        ("Turn {s} the light in the {r}.", "Switch the {r} light {s}.", "Please turn the light in the {r} {s}.")
    )
    return Request(
        text.format(r=room, s=state),
        {"room": room, "state": state},
        draw.pick(("ok", "done")),
        f"The light in the {room} is now {state}.",
    )


def _price(draw: Draw) -> Request:
    item, price = draw.pick((*words.OBJECTS, draw.code())), draw.price()
    text = draw.pick(("How much does the {i} cost?", "What is the price of the {i}?", "Price of the {i}?"))
    return Request(
        text.format(i=item),
        {"item": item},
        draw.pick((str(float(price)), {"price": float(price)})),
        f"The {item} costs {float(price)} dollars.",
    )


def _order(draw: Draw) -> Request:
    code, state = draw.code(), draw.pick(("sent", "open", "lost", "paid", "closed", "ready"))
    text = draw.pick(("Where is my order {c}?", "What is the status of order {c}?", "Check order {c}."))
    return Request(
        text.format(c=code), {"order_id": code}, draw.pick((state, {"status": state})), f"Your order {code} is {state}."
    )


def _remind(draw: Draw) -> Request:
    task = draw.pick(
        ("call Mum", "buy milk", "water the plants", "pay the rent", "feed the cat", "go running", "read a book")
    )
    minutes = draw.integer(1, 120)
    text = draw.pick(("Remind me in {m} minutes to {t}.", "Set a reminder to {t} in {m} minutes."))
    return Request(
        text.format(t=task, m=minutes),
        {"task": task, "minutes": minutes},
        "ok",
        f"I will remind you to {task} in {minutes} minutes.",
    )


def _count(draw: Draw) -> Request:
    text, result = draw.invented(2, 4), draw.integer(3, 14)
    ask = draw.pick(("How many letters does {t} have?", "Count the letters in {t}."))
    return Request(ask.format(t=text), {"text": text}, result, f"{text} has {result} letters.")


TOOLS = (
    Tool(
        ("get_weather", "weather", "fetch_weather", "current_weather"),
        ("Get the weather in a city", "Get the current weather"),
        {"city": "string"},
        _weather,
    ),
    Tool(
        ("add", "add_numbers", "sum"),
        ("Add two numbers", "Return the sum of two numbers"),
        {"a": "integer", "b": "integer"},
        _add,
    ),
    Tool(("multiply", "multiply_numbers"), ("Multiply two numbers",), {"a": "integer", "b": "integer"}, _multiply),
    Tool(
        ("calculator", "calculate", "calc"),
        ("Calculate an expression", "Evaluate a math expression"),
        {"expression": "string"},
        _calculate,
    ),
    Tool(
        ("search", "web_search", "search_web"),
        ("Search the web", "Search for information"),
        {"query": "string"},
        _search,
    ),
    Tool(
        ("lookup", "find_person", "lookup_person"),
        ("Look up a person", "Find a person by name"),
        {"name": "string"},
        _lookup,
    ),
    Tool(
        ("get_time", "time", "current_time"),
        ("Get the time in a city", "Return the current time"),
        {"city": "string"},
        _time,
    ),
    Tool(
        ("convert", "convert_units"),
        ("Convert units", "Convert an amount to another unit"),
        {"amount": "number", "from": "string", "to": "string"},
        _convert,
    ),
    Tool(("send_message", "send_email"), ("Send a message to a person",), {"to": "string", "text": "string"}, _email),
    Tool(
        ("book_table", "reserve_table"),
        ("Book a table at a restaurant",),
        {"restaurant": "string", "people": "integer"},
        _book,
    ),
    Tool(("set_light", "switch_light"), ("Turn a light on or off",), {"room": "string", "state": "string"}, _light),
    Tool(("get_price", "price"), ("Get the price of an item",), {"item": "string"}, _price),
    Tool(("get_order", "order_status"), ("Get the status of an order",), {"order_id": "string"}, _order),
    Tool(("set_reminder", "remind"), ("Set a reminder",), {"task": "string", "minutes": "integer"}, _remind),
    Tool(("count_letters", "letter_count"), ("Count the letters of a word",), {"text": "string"}, _count),
)


Ask = Callable[[], Request]
"""Another request that a tool can serve."""


def _custom_tool(draw: Draw) -> tuple[Json, Ask]:
    """A tool with an invented name and invented parameters, called by its name."""
    verb = draw.pick(("get", "set", "find", "run", "make", "read", "open", "check", "list"))
    noun = draw.pick((draw.invented(1, 2).lower(), draw.pick(words.OBJECTS), draw.pick(words.JOBS)))
    name, spoken = f"{verb}_{noun}", f"{verb} the {noun}"
    kinds = {
        "id": "integer",
        "name": "string",
        "code": "string",
        "level": "integer",
        "color": "string",
        "place": "string",
    }
    makers: dict[str, Callable[[], str | int]] = {
        "id": draw.number,
        "name": draw.person,
        "code": draw.code,
        "level": lambda: draw.integer(1, 99),
        "color": lambda: draw.pick(words.COLOURS),
        "place": draw.place,
    }
    parameters = draw.sample(list(kinds), draw.pick((1, 1, 2)))

    def ask() -> Request:
        arguments = {key: makers[key]() for key in parameters}
        given = " and ".join(f"{key} {value}" for key, value in arguments.items())
        text = draw.pick(
            (
                f"Call {name} with {given}.",
                f"Use {name} with {given}.",
                f"Please {spoken} with {given}.",
                f"{spoken.capitalize()} with {given}.",
            )
        )
        value = draw.value()
        result = draw.pick(("ok", "done", value, {"result": value}))
        answer = f"The result is {value}." if result not in ("ok", "done") else f"I called {name}. It is done."
        return Request(text, arguments, result, answer)

    description = draw.pick((f"{spoken.capitalize()}", f"{verb.capitalize()} a {noun}"))
    return schema(draw, name, description, {key: kinds[key] for key in parameters}), ask


def _name_of(draw: Draw, tool: Tool) -> str:
    """One of its names, half of the time with something around it, so that none can be learned by heart."""
    name = draw.pick(tool.names)
    if draw.chance(0.5):
        return name
    if draw.chance(0.3):
        return f"{name}_{draw.pick(('tool', 'v2', 'api', 'now', 'fast'))}"
    other = draw.invented(1, 2).lower()
    return draw.pick((f"{name}_{other}", f"{other}_{name}"))


def toolbox(draw: Draw, count: int) -> list[tuple[Json, Ask]]:
    """`count` tools with different names, each with what asks for it."""
    chosen: dict[str, tuple[Json, Ask]] = {}
    for tool in draw.sample(TOOLS, count):
        if draw.chance(0.2):
            shape, ask = _custom_tool(draw)
        else:
            shape, ask = tool.schema(draw, _name_of(draw, tool)), partial(tool.ask, draw)
        chosen.setdefault(shape["name"], (shape, ask))
    return list(chosen.values())


def _call(name: str, arguments: Json) -> Json:
    return {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}


def _result_message(result: object) -> Json:
    return {"role": "tool", "content": result if isinstance(result, str) else to_json(result)}


def _opening(draw: Draw) -> list[Json]:
    roll = draw.random.random()
    if roll < 0.3:
        return []
    if roll < 0.75:
        return [system(words.DEFAULT_SYSTEM_PROMPT)]
    return [
        system(
            draw.pick((*words.SYSTEM_PROMPTS, "Use the tools.", "You can call tools.", "Call a tool when you need it."))
        )
    ]


def single_call(draw: Draw) -> Example:
    """A request and the call it needs."""
    box = toolbox(draw, draw.pick((1, 2, 2, 3, 3, 4)))
    shape, ask = draw.pick(box)
    request = ask()
    call = _call(shape["name"], request.arguments)
    messages = [*_opening(draw), user(draw.casual(request.text)), call]
    return Example("tool_call", messages, [tool for tool, _ in box], {"call": call["tool_calls"][0]})


def many_calls(draw: Draw) -> Example:
    """Requests one after another, each with its call: much to learn from one list of tools."""
    box = toolbox(draw, draw.pick((2, 3, 4, 5)))
    messages = _opening(draw)
    call: Json = {}
    for _ in range(draw.integer(3, 9)):
        shape, ask = draw.pick(box)
        request = ask()
        call = _call(shape["name"], request.arguments)
        messages += [user(draw.casual(request.text)), call]
    return Example("tool_call", messages, [tool for tool, _ in box], {"call": call["tool_calls"][0]})


def calls_with_answers(draw: Draw) -> Example:
    """One to three requests, each with its call, the tool's result and the answer that uses it."""
    box = toolbox(draw, draw.pick((1, 2, 3, 3)))
    messages = _opening(draw)
    expect = {}
    for shape, ask in draw.sample(box, min(len(box), draw.pick((1, 1, 1, 2, 3)))):
        request = ask()
        messages += [
            user(request.text),
            _call(shape["name"], request.arguments),
            _result_message(request.result),
            assistant(request.answer),
        ]
        expect = {"answer": request.answer}
    return Example("tool_answer", messages, [tool for tool, _ in box], expect)


SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hi", "Hi! What can I do for you?"),
    ("Thank you!", "You are welcome!"),
    ("Who are you?", "I am pie-tiny, a very small language model."),
    ("How are you?", "I am fine, thank you. How can I help?"),
    ("Tell me a joke.", "Why did the cookie cry? Because its mother was a wafer so long."),
    ("Goodbye!", "Goodbye! Have a nice day."),
)


def no_call(draw: Draw) -> Example:
    """Tools are there, but the request needs none."""
    box = toolbox(draw, draw.integer(1, 3))
    question, answer = draw.pick(SMALL_TALK)
    return Example("tool_chat", [*_opening(draw), user(question), assistant(answer)], [tool for tool, _ in box])
