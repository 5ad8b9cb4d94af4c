"""What goes in and out: chat completions in the shape that OpenAI's clients know. The JSON schema is made of it."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass
class Message:
    role: Role
    content: str


@dataclass
class Delta:
    content: str = ""


@dataclass
class ChunkChoice:
    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0


@dataclass
class Chunk:
    """What comes while it is written, as an event `message` each."""

    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"


@dataclass
class Choice:
    message: Message
    finish_reason: FinishReason
    index: int = 0


@dataclass
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass
class Completion:
    """What comes at the end, as the event `return`."""

    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"
