"""What the agent can do. The tools run inside the engine's sandbox, next to the model.

A tool is a typed function: its name, annotations and docstring are what the model is shown.
"""

import ast
import operator

from inferlet import InvalidInput, tool

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@tool
def calculator(expression: str) -> str:
    """Evaluate a math expression"""
    try:
        return f"{evaluate(ast.parse(expression, mode='eval').body):.10g}"
    except (SyntaxError, ArithmeticError) as error:
        raise InvalidInput(f"{expression}: {error}") from error


def evaluate(node: ast.expr) -> float:
    """Arithmetic only: the text comes from a model."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return float(OPERATORS[type(op)](evaluate(left), evaluate(right)))
    raise InvalidInput(f"{ast.unparse(node)} is no arithmetic")


TOOLS = [calculator]
