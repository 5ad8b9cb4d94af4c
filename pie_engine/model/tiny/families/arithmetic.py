"""Small sums, differences and products, bare and in words."""

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, user

QUESTIONS = (
    "What is {sum}?",
    "What is {sum}?",
    "Calculate {sum}.",
    "Compute {sum}",
    "{sum} = ?",
    "{sum}",
    "How much is {sum}?",
    "Solve: {sum}",
    "What's {sum}?",
)
SPOKEN = {"+": ("plus", "added to"), "-": ("minus",), "*": ("times", "multiplied by")}


def sum_of(draw: Draw) -> tuple[int, str, int, int]:
    """Two operands, the operator between them and the result; the combination is on this side of the split."""
    return draw.fresh(lambda: _any_sum(draw), key=lambda s: f"{s[0]}{s[1]}{s[2]}")


def _any_sum(draw: Draw) -> tuple[int, str, int, int]:
    operator = draw.pick("++--*")
    if operator == "*":
        left, right = draw.integer(0, 10), draw.integer(0, 10)
        return left, operator, right, left * right
    limit = 20 if draw.chance(0.75) else 50
    left, right = draw.integer(0, limit), draw.integer(0, limit)
    if operator == "+":
        return left, operator, right, left + right
    left, right = max(left, right), min(left, right)
    return left, operator, right, left - right


def bare(draw: Draw) -> Example:
    left, operator, right, result = sum_of(draw)
    spoken = draw.pick(SPOKEN[operator]) if draw.chance(0.2) else operator
    question = draw.pick(QUESTIONS).format(sum=f"{left} {spoken} {right}")
    answer = f"{left} {operator} {right} = {result}"
    return Example("arithmetic", [user(question), assistant(answer)], expect={"result": result})


def in_words(draw: Draw) -> Example:
    left, operator, right, result = sum_of(draw)
    name, things = draw.person(), draw.pick(words.THINGS)
    if operator == "+":
        story = draw.pick(
            (
                f"{name} has {left} {things} and buys {right} more.",
                f"{name} has {left} {things}. A friend gives {name} {right} more.",
            )
        )
    elif operator == "-":
        story = draw.pick(
            (
                f"{name} has {left} {things} and gives {right} away.",
                f"{name} has {left} {things}. {name} loses {right} of them.",
            )
        )
    else:
        story = f"{name} has {left} bags with {right} {things} each."
    question = draw.pick((f"How many {things} does {name} have now?", f"How many {things} does {name} have?"))
    answer = f"{left} {operator} {right} = {result}. {name} has {result} {things}."
    return Example("arithmetic", [user(f"{story} {question}"), assistant(answer)], expect={"result": result})


def comparison(draw: Draw) -> Example:
    left, right = draw.distinct(lambda: draw.integer(0, 99), 2)
    larger = draw.chance(0.5)
    kind = draw.pick(("larger", "bigger", "greater")) if larger else draw.pick(("smaller", "less"))
    answer = max(left, right) if larger else min(left, right)
    question = draw.pick((f"Which is {kind}, {left} or {right}?", f"Which number is {kind}: {left} or {right}?"))
    return Example("comparison", [user(question), assistant(f"{answer} is {kind}.")])
