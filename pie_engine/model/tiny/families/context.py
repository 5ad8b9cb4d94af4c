"""Questions whose answer stands in the prompt: facts, tables, passages and earlier turns."""

from collections.abc import Callable

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, system, user

Forms = tuple[tuple[str, ...], tuple[str, ...], str]

# attribute: (fact sentences, questions, answers); {n} is the name and {v} the value.
ATTRIBUTES: dict[str, Forms] = {
    "city": (
        ("{n} lives in {v}.", "{n} comes from {v}.", "The home of {n} is {v}."),
        ("Where does {n} live?", "In which city does {n} live?", "What city does {n} live in?"),
        "{n} lives in {v}.",
    ),
    "age": (
        ("{n} is {v} years old.", "{n} turned {v} this year.", "The age of {n} is {v}."),
        ("How old is {n}?", "What is the age of {n}?"),
        "{n} is {v} years old.",
    ),
    "colour": (
        ("The favourite colour of {n} is {v}.", "{n} likes {v} best."),
        ("What is the favourite colour of {n}?", "Which colour does {n} like?"),
        "The favourite colour of {n} is {v}.",
    ),
    "color": (
        ("The favorite color of {n} is {v}.", "{n}'s favorite color is {v}."),
        ("What is the favorite color of {n}?", "What is {n}'s favorite color?"),
        "The favorite color of {n} is {v}.",
    ),
    "job": (
        ("{n} is a {v}.", "{n} works as a {v}."),
        ("What is the job of {n}?", "What does {n} do?", "What is {n}'s job?"),
        "{n} is a {v}.",
    ),
    "pet": (
        ("{n} has a {v}.", "The pet of {n} is a {v}."),
        ("What pet does {n} have?", "Which animal does {n} have?"),
        "{n} has a {v}.",
    ),
    "hobby": (
        ("{n} likes {v}.", "The hobby of {n} is {v}."),
        ("What does {n} like?", "What is the hobby of {n}?"),
        "{n} likes {v}.",
    ),
    "code": (
        ("The code of {n} is {v}.", "{n} has the code {v}.", "{n}: code {v}."),
        ("What is the code of {n}?", "Which code does {n} have?", "Give me the code of {n}."),
        "The code of {n} is {v}.",
    ),
    "phone": (
        ("The phone number of {n} is {v}.", "You can call {n} at {v}."),
        ("What is the phone number of {n}?", "How can I call {n}?", "What is {n}'s phone number?"),
        "The phone number of {n} is {v}.",
    ),
    "room": (
        ("{n} is in room {v}.", "The room of {n} is {v}."),
        ("In which room is {n}?", "What is the room of {n}?"),
        "{n} is in room {v}.",
    ),
    "friend": (
        ("The best friend of {n} is {v}.", "{n} is a friend of {v}."),
        ("Who is the best friend of {n}?", "Who is {n}'s friend?"),
        "The friend of {n} is {v}.",
    ),
}
ITEM_FACTS: dict[str, Forms] = {
    "price": (
        ("The {n} costs {v} dollars.", "The price of the {n} is {v} dollars.", "A {n} costs {v} dollars."),
        ("How much does the {n} cost?", "What is the price of the {n}?", "How much is the {n}?"),
        "The {n} costs {v} dollars.",
    ),
    "colour": (
        ("The {n} is {v}.", "The colour of the {n} is {v}."),
        ("What colour is the {n}?", "Which colour does the {n} have?", "What color is the {n}?"),
        "The {n} is {v}.",
    ),
    "place": (
        ("The {n} is in {v}.", "You can find the {n} in {v}."),
        ("Where is the {n}?", "Where can I find the {n}?"),
        "The {n} is in {v}.",
    ),
}
FILLER = (
    "The weather was mild that day.",
    "Many people walked in the park.",
    "The train was late again.",
    "Nobody knew what would happen next.",
    "The shop opens in the morning.",
    "It rained a little in the afternoon.",
    "The street was quiet.",
    "Some children played with a ball.",
    "The old clock on the wall was slow.",
    "There was fresh bread on the table.",
    "The river is wide at this point.",
    "A dog slept near the door.",
    "The market was full of people.",
    "The meeting took a long time.",
    "Birds sang in the trees.",
    "Somebody left a window open.",
)
LEADS = (
    "{facts} {question}",
    "{facts}\n{question}",
    "Facts: {facts}\nQuestion: {question}",
    "Context: {facts}\n\nQuestion: {question}",
    "Read this: {facts} {question}",
    "{question}\n\n{facts}",
    "Here are some facts. {facts} {question}",
    "Use the text to answer.\nText: {facts}\n{question}",
)


def _value(draw: Draw, attribute: str) -> str:
    makers = {
        "city": draw.place,
        "age": lambda: draw.integer(2, 99),
        "colour": lambda: draw.pick(words.COLOURS),
        "color": lambda: draw.pick(words.COLOURS),
        "job": lambda: draw.pick(words.JOBS),
        "pet": lambda: draw.pick(words.PETS),
        "hobby": lambda: draw.pick(words.HOBBIES),
        "code": draw.code,
        "phone": lambda: draw.number(4, 7),
        "room": lambda: draw.number(1, 3),
        "friend": draw.person,
        "price": lambda: draw.price() if draw.chance(0.5) else draw.number(1, 3),
        "place": draw.place,
    }
    return str(makers[attribute]())


def _facts(draw: Draw, count: int) -> list[tuple[str, str, str, str]]:
    """`count` facts about different names: (sentence, question, answer, value)."""
    if draw.chance(0.25):
        table, names = ITEM_FACTS, draw.sample(words.OBJECTS, count)
    else:
        table, names = ATTRIBUTES, draw.people(count)
    chosen = draw.sample(list(table), min(len(table), draw.pick((1, 1, 2, 3))))
    return [_fact(draw, table[attribute], name, attribute) for name in names for attribute in [draw.pick(chosen)]]


def _fact(draw: Draw, forms: Forms, name: str, attribute: str) -> tuple[str, str, str, str]:
    sentences, questions, answer = forms
    value = _value(draw, attribute)
    return (
        draw.pick(sentences).format(n=name, v=value),
        draw.pick(questions).format(n=name),
        answer.format(n=name, v=value),
        value,
    )


def facts_in_user(draw: Draw) -> Example:
    facts = _facts(draw, draw.pick((1, 2, 2, 3, 3, 4, 5)))
    _, question, answer, value = draw.pick(facts)
    sentences = [fact[0] for fact in facts]
    if draw.chance(0.2):
        sentences.insert(draw.integer(0, len(sentences)), draw.pick(FILLER))
    prompt = draw.pick(LEADS).format(facts=" ".join(sentences), question=question)
    return Example("copy", [user(prompt), assistant(answer)], expect={"contains": value})


def many_questions(draw: Draw) -> Example:
    """Facts, and one question about them after another."""
    facts = _facts(draw, draw.integer(3, 7))
    asked = draw.sample(facts, draw.integer(3, len(facts)))
    prompt = draw.pick(LEADS).format(facts=" ".join(fact[0] for fact in facts), question=asked[0][1])
    messages = [user(prompt), assistant(asked[0][2])]
    for _, question, answer, _ in asked[1:]:
        messages += [user(draw.casual(question)), assistant(answer)]
    return Example("copy", messages, expect={"contains": asked[-1][3]})


def facts_in_system(draw: Draw) -> Example:
    facts = _facts(draw, draw.integer(1, 5))
    lead = draw.pick(("You are a helpful assistant. ", "", "Facts: ", "You are a helpful assistant.\n"))
    messages = [system(lead + " ".join(fact[0] for fact in facts))]
    asked = draw.sample(facts, min(len(facts), draw.integer(1, 3)))
    for _, question, answer, _ in asked:
        messages += [user(draw.casual(question)), assistant(answer)]
    return Example("copy", messages, expect={"contains": asked[-1][3]})


def long_passage(draw: Draw) -> Example:
    """A needle among filler sentences, up to several hundred tokens away."""
    facts = _facts(draw, draw.integer(2, 5))
    sentences = [draw.pick(FILLER) for _ in range(draw.integer(4, 36))]
    for fact in facts:
        sentences.insert(draw.integer(0, len(sentences)), fact[0])
    _, question, answer, value = draw.pick(facts)
    prompt = draw.pick(LEADS[:5]).format(facts=" ".join(sentences), question=question)
    return Example("copy", [user(prompt), assistant(answer)], expect={"contains": value})


def table(draw: Draw) -> Example:
    """`key: value` lines about one or more names."""
    attribute = draw.pick(("city", "age", "colour", "job", "code", "phone", "room"))
    names = draw.people(draw.integer(2, 6))
    values = [_value(draw, attribute) for _ in names]
    lines = "\n".join(f"- {name}: {value}" for name, value in zip(names, values, strict=True))
    index = draw.integer(0, len(names) - 1)
    forms = (f"What is the {attribute} of {names[index]}?", f"Which {attribute} does {names[index]} have?")
    answer = f"The {attribute} of {names[index]} is {values[index]}."
    heading = draw.pick((f"Here is a list of each {attribute}:", f"{attribute.capitalize()}:"))
    prompt = f"{heading}\n{lines}\n{draw.pick(forms)}"
    return Example("copy", [user(prompt), assistant(answer)], expect={"contains": values[index]})


def passages(draw: Draw) -> Example:
    """Numbered passages, as a retrieval step hands them over; the answer cites one."""
    facts = _facts(draw, draw.integer(2, 5))
    index = draw.integer(0, len(facts) - 1)
    listing = "\n".join(f"[{number}] {fact[0]}" for number, fact in enumerate(facts, 1))
    _, question, answer, value = facts[index]
    prompt = draw.pick(
        (
            f"Use the passages to answer.\n{listing}\nQuestion: {question}",
            f"Passages:\n{listing}\n\n{question}",
        )
    )
    return Example("copy", [user(prompt), assistant(f"{answer} [{index + 1}]")], expect={"contains": value})


def introduction(draw: Draw) -> Example:
    """The user says something about themselves and asks for it later."""
    name, place, job = draw.person(), draw.place(), draw.pick(words.JOBS)
    age, colour, pet = draw.integer(5, 90), draw.pick(words.COLOURS), draw.pick(words.PETS)
    topics = (
        (f"My name is {name}.", f"Nice to meet you, {name}!", "What is my name?", f"Your name is {name}.", name),
        (f"I am {name}.", f"Hello {name}! How can I help you?", "Who am I?", f"You are {name}.", name),
        (
            f"I live in {place}.",
            f"{place} sounds like a nice place.",
            "Where do I live?",
            f"You live in {place}.",
            place,
        ),
        (f"I am a {job}.", f"Being a {job} is good work.", "What is my job?", f"You are a {job}.", job),
        (f"I am {age} years old.", "Thank you for telling me.", "How old am I?", f"You are {age} years old.", str(age)),
        (
            f"I like {colour}.",
            f"{colour.capitalize()} is a lovely colour.",
            "Which colour do I like?",
            f"You like {colour}.",
            colour,
        ),
        (f"I have a {pet}.", f"A {pet} is a nice pet.", "Which pet do I have?", f"You have a {pet}.", pet),
    )
    told = draw.sample(topics, draw.integer(1, 3))
    if draw.chance(0.3):
        messages = [user(" ".join(topic[0] for topic in told)), assistant(f"{told[-1][1]}")]
    else:
        messages = [message for topic in told for message in (user(topic[0]), assistant(topic[1]))]
    asked = draw.pick(told)
    messages += [user(asked[2]), assistant(asked[3])]
    return Example("copy", messages, expect={"contains": asked[4]})


def persona(draw: Draw) -> Example:
    name, job, place = draw.person(), draw.pick(words.JOBS), draw.place()
    messages = [
        system(
            draw.pick((f"You are {name}, a {job} in {place}.", f"Your name is {name}. You are a {job} from {place}."))
        )
    ]
    turns = (
        ("Who are you?", f"I am {name}, a {job}.", name),
        ("What is your name?", f"My name is {name}.", name),
        ("What is your job?", f"I am a {job}.", job),
        ("Where do you live?", f"I live in {place}.", place),
    )
    asked = draw.sample(turns, draw.integer(1, 3))
    for question, answer, _ in asked:
        messages += [user(question), assistant(answer)]
    return Example("copy", messages, expect={"contains": asked[-1][2]})


def repeat(draw: Draw) -> Example:
    makers: tuple[Callable[[], str], ...] = (
        draw.invented,
        draw.code,
        lambda: str(draw.number(3, 8)),
        lambda: " ".join(_random_words(draw)),
        lambda: " ".join(draw.people(draw.integer(2, 8))),
        lambda: ", ".join(str(draw.value()) for _ in range(draw.integer(2, 8))),
    )
    text = draw.pick(makers)()
    request = draw.pick(
        ("Repeat: {}", "Say {}", "Repeat after me: {}", "Write {}", "Copy this: {}", "Repeat the text: {}")
    )
    return Example("copy", [user(request.format(text)), assistant(text)], expect={"contains": text})


def _random_words(draw: Draw) -> list[str]:
    pools = (words.COLOURS, words.OBJECTS, words.JOBS, words.PETS, words.HOBBIES, words.THINGS)
    return draw.fresh(lambda: [draw.pick(draw.pick(pools)) for _ in range(draw.integer(2, 12))])
