"""Small everyday tasks: completions, translations, choices, mails, remarks and summaries of plain texts."""

from __future__ import annotations

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, user
from pie_engine.model.tiny.families import prose
from pie_engine.model.tiny.words import pairs, phrases, terms

TRANSLATIONS = {
    "French": pairs(
        "hello:bonjour,thank you:merci,goodbye:au revoir,yes:oui,no:non,cat:chat,dog:chien,water:eau,house:maison"
    ),
    "German": pairs(
        "hello:hallo,thank you:danke,goodbye:auf Wiedersehen,yes:ja,no:nein,cat:Katze,dog:Hund,water:Wasser,house:Haus"
    ),
    "Spanish": pairs(
        "hello:hola,thank you:gracias,goodbye:adios,yes:si,no:no,cat:gato,dog:perro,water:agua,house:casa"
    ),
}
REMARKS = (
    ("I bought a {o} today.", "A {o}! What color is it?"),
    ("I went to {p} yesterday.", "{p} sounds nice. What did you see there?"),
    ("I met {n} in the park.", "How is {n} doing?"),
    ("My {o} is broken.", "I am sorry about your {o}. Can it be repaired?"),
    ("I am learning to play chess.", "That is great! Practice a little every day."),
    ("{n} is my best friend.", "{n} is lucky to have you as a friend."),
    ("I want to go to {p}.", "{p} is a good choice. When do you want to go?"),
    ("I lost my {o}.", "I hope you find your {o} soon. Where did you see it last?"),
    ("I made {f} for dinner.", "That sounds tasty! Did you enjoy the {f}?"),
    ("Today is my birthday.", "Happy birthday! I wish you all the best."),
    ("The weather is nice today.", "That is good to hear. You could go for a walk."),
    ("It is raining.", "Then take an umbrella with you, or stay inside with a cup of tea."),
    ("I am hungry.", "You could eat some bread with cheese, or a bowl of soup."),
    ("I have a question.", "Sure, what is your question?"),
    ("I have a new job as a {j}.", "Congratulations! I hope you enjoy your work as a {j}."),
)
MAIL_TOPICS = phrases(
    "the meeting,the party,our trip,the new house,the lost keys,the report,my holiday,the garden,lunch"
)
MAIL_BODIES = (
    "I am writing to you about {t}. Can we talk about it this week?",
    "Thank you for your message about {t}. I will call you tomorrow.",
    "I have some news about {t}. Please let me know when you have time.",
    "I would like to invite you to talk about {t}. I hope you can come.",
)
MAIL_CLOSINGS = ("Best wishes", "Kind regards", "See you soon")
OPTION_POOLS = (
    words.COLOURS,
    words.OBJECTS,
    words.PETS,
    words.HOBBIES,
    terms("yes no maybe"),
    terms("tea coffee milk"),
)


def completion(draw: Draw) -> Example:
    """The beginning of a well-known sentence, in the chat or as plain text."""
    country, city = draw.pick(list(words.CAPITALS.items()))
    sentence, cut = f"The capital of {country} is {city}.", f" {city}."
    if draw.chance(0.4):
        return Example("prose", text=sentence)
    return Example("knowledge", [user(sentence.removesuffix(cut)), assistant(sentence)])


def translation(draw: Draw) -> Example:
    language, table = draw.pick(list(TRANSLATIONS.items()))
    word, translated = draw.pick(list(table.items()))
    question = draw.pick(
        (
            f"Translate {word} to {language}.",
            f'Translate "{word}" into {language}.',
            f"How do you say {word} in {language}?",
            f"What is {word} in {language}?",
        )
    )
    return Example("knowledge", [user(draw.casual(question)), assistant(f'"{word}" is "{translated}" in {language}.')])


def remark(draw: Draw) -> Example:
    said, reply = draw.pick(REMARKS)
    slots = {
        "o": draw.pick([thing for thing in words.OBJECTS if thing[0] not in "aeiou"]),
        "p": draw.place(),
        "n": draw.person(),
        "f": draw.pick(words.CATEGORIES[("food", "foods")]),
        "j": draw.pick([job for job in words.JOBS if job[0] not in "aeiou"]),
    }
    return Example("chat", [user(said.format(**slots)), assistant(reply.format(**slots))])


def mail(draw: Draw) -> Example:
    name, topic = draw.person(), draw.pick(MAIL_TOPICS)
    request = draw.pick(
        (
            f"Write an email to {name} about {topic}.",
            f"Write a short letter to {name} about {topic}.",
            f"Write a message to {name} about {topic}.",
            f"Help me write a mail to {name}. It is about {topic}.",
        )
    )
    body = draw.pick(MAIL_BODIES).format(t=topic)
    greeting = draw.pick(("Dear", "Hello", "Hi"))
    return Example("mail", [user(request), assistant(f"{greeting} {name},\n\n{body}\n\n{draw.pick(MAIL_CLOSINGS)}")])


def choice(draw: Draw) -> Example:
    """One of the given options; any of them is right."""
    if draw.chance(0.25):
        last = draw.integer(2, 20)
        request = draw.pick((f"Pick a number between 1 and {last}.", f"Choose a number from 1 to {last}."))
        return Example("choice", [user(request), assistant(str(draw.integer(1, last)))])
    options = draw.people(3) if draw.chance(0.4) else draw.sample(draw.pick(OPTION_POOLS), 3)
    listing = f"{', '.join(options[:-1])} or {options[-1]}"
    request = draw.pick(("Choose one: {}", "Pick one of these: {}", "Answer with one of {}.", "Which one: {}?")).format(
        listing
    )
    return Example("choice", [user(request), assistant(draw.pick(options))])


def text_summary(draw: Draw) -> Example:
    text, topic = prose.described(draw)
    request = draw.pick(("Summarize: {}", "Summarize this text: {}", "What is this text about? {}", "{}\n\nTL;DR"))
    return Example("summary", [user(request.format(text)), assistant(f"The text is about {topic}.")])
