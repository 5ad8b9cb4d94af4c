"""ReAct traces: Thought / Action: tool[args] / Observation / Final Answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, system, user


@dataclass(frozen=True)
class Step:
    question: str
    thought: str
    action: str
    observation: str
    conclusion: str
    answer: str
    key: str


def _search(draw: Draw) -> Step:
    name, city, attribute = draw.person(), draw.place(), draw.pick(("home town", "birthplace", "office"))
    observation = draw.pick((f"The {attribute} of {name} is {city}.", f"{name}: {attribute} {city}", city))
    return Step(
        draw.pick((f"What is the {attribute} of {name}?", f"Where is the {attribute} of {name}?")),
        f"I need to search for the {attribute} of {name}.",
        f"search[{attribute} of {name}]",
        observation,
        "I know the answer now.",
        f"The {attribute} of {name} is {city}.",
        city,
    )


def _capital(draw: Draw) -> Step:
    country, capital = draw.invented(), draw.invented()
    return Step(
        f"What is the capital of {country}?",
        f"I need to find the capital of {country}.",
        f"search[capital of {country}]",
        draw.pick((f"The capital of {country} is {capital}.", capital)),
        "I know the answer now.",
        f"The capital of {country} is {capital}.",
        capital,
    )


def _calculate(draw: Draw) -> Step:
    expression, result = f"{draw.number(1, 4)} {draw.pick('+-*')} {draw.number(1, 4)}", draw.number(2, 6)
    return Step(
        draw.pick((f"What is {expression}?", f"Calculate {expression}.", f"How much is {expression}?")),
        "I need to calculate this.",
        f"calculator[{expression}]",
        str(result),
        "I have the result.",
        f"{expression} = {result}",
        str(result),
    )


def _lookup(draw: Draw) -> Step:
    item, price = draw.pick((*words.OBJECTS, draw.code())), draw.price()
    return Step(
        draw.pick((f"How much does the {item} cost?", f"What is the price of the {item}?")),
        f"I need to look up the price of the {item}.",
        f"lookup[{item}]",
        draw.pick((f"The {item} costs {price} dollars.", price, f"price: {price}")),
        "I know the price now.",
        f"The {item} costs {price} dollars.",
        price,
    )


def _weather(draw: Draw) -> Step:
    city, sky = draw.place(), draw.pick(("sunny", "cloudy", "rainy", "windy", "snowy"))
    degrees = draw.integer(0, 39)
    return Step(
        draw.pick((f"What is the weather in {city}?", f"How is the weather in {city}?")),
        f"I need to get the weather in {city}.",
        f"weather[{city}]",
        draw.pick((f"{sky}, {degrees} degrees", f"It is {sky} with {degrees} degrees.")),
        "I know the weather now.",
        f"It is {sky} in {city}, with {degrees} degrees.",
        str(degrees),
    )


STEPS: dict[str, Callable[[Draw], Step]] = {
    "search": _search,
    "calculator": _calculate,
    "lookup": _lookup,
    "weather": _weather,
}
DESCRIPTIONS = {
    "search": ("find information", "search the web"),
    "calculator": ("calculate a result", "do math"),
    "lookup": ("look up a price", "find the price of an item"),
    "weather": ("get the weather in a city", "tell the weather"),
}
RULES = (
    "Answer the question with the help of tools. Write Thought and Action. End with Final Answer.",
    "Solve the task step by step. Use this format:\nThought: what to do\nAction: tool[input]\n"
    "Observation: the result\nFinal Answer: the answer",
    "Use Thought, Action: tool[input], Observation and Final Answer.",
    "You are a helpful assistant. Think, act with a tool, observe, and give a Final Answer.",
)


def _instructions(draw: Draw, tools: list[str]) -> str:
    if draw.chance(0.5):
        listing = "\n".join(f"- {tool}: {draw.pick(DESCRIPTIONS[tool])}" for tool in tools)
        return f"{draw.pick(RULES)}\nTools:\n{listing}"
    return f"{draw.pick(RULES)}\nTools: {', '.join(f'{tool}[input]' for tool in tools)}"


def _steps(draw: Draw) -> tuple[str, list[Step]]:
    tools = draw.sample(list(STEPS), draw.integer(2, 4))
    steps = [STEPS[draw.pick(tools)](draw)]
    if draw.chance(0.1):
        steps = [_capital(draw)] if "search" in tools else steps
    if draw.chance(0.15):
        steps.append(STEPS[draw.pick(tools)](draw))
    return _instructions(draw, tools), steps


def _question(steps: list[Step]) -> str:
    return " ".join(step.question for step in steps)


def _final(steps: list[Step]) -> str:
    return f"Thought: {steps[-1].conclusion}\nFinal Answer: {' '.join(step.answer for step in steps)}"


def _move(step: Step) -> str:
    return f"Thought: {step.thought}\nAction: {step.action}"


def trace(draw: Draw) -> Example:
    """The whole loop in one assistant message, the observations written in by the caller."""
    rules, steps = _steps(draw)
    parts = [f"{_move(step)}\nObservation: {step.observation}" for step in steps]
    answer = "\n".join([*parts, _final(steps)])
    question = draw.pick(("{}", "Question: {}")).format(_question(steps))
    head = [system(rules), user(question)] if draw.chance(0.7) else [user(f"{rules}\n\n{question}")]
    expect = {"steps": [(step.action, step.observation) for step in steps], "contains": steps[-1].key}
    return Example("react", [*head, assistant(answer)], expect=expect)


def turns(draw: Draw) -> Example:
    """The same loop over messages: the assistant stops after the action, the user sends the observation."""
    rules, steps = _steps(draw)
    rule = draw.pick((" Stop after the Action.", " Write one step and stop after the Action."))
    messages = [system(rules + rule), user(_question(steps))]
    for step in steps:
        messages += [assistant(_move(step)), user(f"Observation: {step.observation}")]
    return Example("react_turns", [*messages, assistant(_final(steps))], expect={"contains": steps[-1].key})
