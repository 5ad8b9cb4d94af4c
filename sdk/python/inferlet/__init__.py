"""What inferlets import.

>>> from inferlet import Context, Sampler, session
>>>
>>> async def main(prompt: str, max_tokens: int = 128) -> str:
...     ctx = Context()
...     ctx.user(prompt)
...     async for chunk in ctx.generate(Sampler.top_p(0.9), max_tokens=max_tokens):
...         session.send(chunk.text)
...     return ctx.last_text
"""

from inferlet import log
from inferlet._process import Runtime, runtime
from inferlet._session import Session, session
from inferlet.adapter import Adapter, AdapterInfo
from inferlet.beams import Beams, Hypothesis
from inferlet.children import Child
from inferlet.context import Context
from inferlet.errors import (
    Busy,
    Cancelled,
    ChildFailed,
    ContextTooLong,
    CoreLost,
    Failure,
    Internal,
    InvalidInput,
    InvalidProgram,
    LimitExceeded,
    NotFound,
    OutOfPages,
    PieError,
    Unsupported,
)
from inferlet.forward import Output
from inferlet.grammar import Grammar
from inferlet.market import Market, scheduling
from inferlet.matcher import Matcher, MatcherState
from inferlet.model import Model, ModelInfo, Tokenizer
from inferlet.sampler import Sampler
from inferlet.saved import SavedContext
from inferlet.stream import Chunk, FinishReason, Stream, Usage
from inferlet.tools import Tool, ToolCall, parse_calls, tool

__all__ = [
    "Adapter",
    "AdapterInfo",
    "Beams",
    "Busy",
    "Cancelled",
    "Child",
    "ChildFailed",
    "Chunk",
    "Context",
    "ContextTooLong",
    "CoreLost",
    "Failure",
    "FinishReason",
    "Grammar",
    "Hypothesis",
    "Internal",
    "InvalidInput",
    "InvalidProgram",
    "LimitExceeded",
    "Market",
    "Matcher",
    "MatcherState",
    "Model",
    "ModelInfo",
    "NotFound",
    "OutOfPages",
    "Output",
    "PieError",
    "Runtime",
    "Sampler",
    "SavedContext",
    "Session",
    "Stream",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "Unsupported",
    "Usage",
    "log",
    "parse_calls",
    "runtime",
    "scheduling",
    "session",
    "tool",
]
