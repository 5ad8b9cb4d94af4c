from inferlet import Context, InvalidInput, Sampler, log

from person import NAMES, Person

KEYS = f"{', '.join(NAMES[:-1])} and {NAMES[-1]}"


async def main(text: str, attempts: int = 4, max_tokens: int = 100) -> Person:
    """Read the facts about a person out of a text.

    What comes is always of the type: a grammar keeps the model to it. What it made up is asked for again.

    Args:
        text: What to read.
        attempts: How many times the model may try.
        max_tokens: Most tokens of one attempt.
    """
    wrong: list[str] = []
    with Context() as ctx:
        ctx.user(f"Extract {KEYS} as JSON: {text}")
        await ctx.flush()  # the attempts share what has been read
        for attempt in range(attempts):
            with ctx.fork() as fork:
                person = await fork.generate_as(Person, sampler(attempt), max_tokens=max_tokens)
            wrong = person.made_up(text)
            if not wrong:
                return person
            log.warning("attempt %d made up: %s", attempt + 1, ", ".join(wrong))
    hint = "say more in the text, or allow more `attempts`"
    raise InvalidInput(f"the text does not say {' or '.join(wrong) or 'anything'}, as far as the model sees", hint=hint)


def sampler(attempt: int) -> Sampler:
    """The likeliest answer first, others then."""
    return Sampler.temperature(0.9) if attempt else Sampler.greedy()
