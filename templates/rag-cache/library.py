"""The documents, read by the model once: their KV cache is kept on the disk, and each run goes on from there."""

import hashlib
from pathlib import Path

from inferlet import Context, InvalidInput, NotFound, log, runtime

FOLDER = Path("documents")
RULES = "Answer from these documents."


def documents() -> str:
    """All of them, as the model gets them."""
    return "\n\n".join(path.read_text("utf-8").strip() for path in sorted(FOLDER.rglob("*.txt")))


async def open_library() -> Context:
    """A context that has read the documents: the saved one, or one that reads them now and is saved."""
    text = f"{RULES}\n\n{documents()}"
    prefix = f"{runtime.program.split('@')[0]}-"
    name = prefix + hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        return Context.open(name)
    except NotFound:
        log.info("reading the documents")
    except InvalidInput as error:  # it was saved with other weights
        log.info("reading the documents anew: %s", error)
    ctx = Context().system(text)
    await ctx.save(name)
    forget_others(prefix, name)
    return ctx


def forget_others(prefix: str, name: str) -> None:
    """What was saved of documents as they were before."""
    for saved in Context.list():
        if saved.name.startswith(prefix) and saved.name != name:
            Context.delete(saved.name)
