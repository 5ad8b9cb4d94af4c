"""What the program can do; runs inside the engine's sandbox."""

import ast
import operator

from inferlet import tool

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
PRICES = {"lamp": 35, "chair": 80, "book": 12, "kettle": 27, "clock": 49, "bicycle": 310, "umbrella": 18}


@tool(description="do math")
def calculator(expression: str) -> int | float:
    """The value of an expression of numbers, + - * / and parentheses."""
    value = evaluate(ast.parse(expression.strip(), mode="eval").body)
    return int(value) if value == int(value) else round(value, 6)


@tool(description="find the price of an item")
def lookup(item: str) -> str:
    """The price of an item of the catalogue."""
    name = item.strip().lower().removeprefix("the ").removeprefix("price of the ")
    if name not in PRICES:
        raise ValueError(f"{item} is not in the catalogue")
    return f"The {name} costs {PRICES[name]} dollars."


def evaluate(node: ast.expr) -> float:
    """Arithmetic only: the text comes from a model."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError(f"{ast.unparse(node)} is no arithmetic")


TOOLS = {each.name: each for each in (calculator, lookup)}
