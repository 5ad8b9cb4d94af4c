"""Short stories put together from beats, with summaries, titles and continuations of them."""

from __future__ import annotations

from pie_engine.model.tiny.draw import Draw, Example, assistant, user
from pie_engine.model.tiny.words import phrases, terms

ANIMALS = terms(
    "fox bear rabbit mouse owl cat dog frog duck hedgehog squirrel horse pony lion tiger wolf turtle penguin "
    "elephant monkey sheep goat pig cow deer bird bee dragon robot snail"
)
PEOPLE = (
    "girl",
    "boy",
    "baker",
    "sailor",
    "king",
    "queen",
    "farmer",
    "wizard",
    "knight",
    "painter",
    "gardener",
    "princess",
)
HEROES = (*ANIMALS, *PEOPLE, *ANIMALS, *PEOPLE, "cloud", "tree", "star", "train", "lamp", "kite", "teapot", "boat")
TRAITS = terms("little brave clever kind shy curious young old happy small quiet lazy funny gentle hungry lonely")
PLACES = phrases(
    "in a green forest,near a blue lake,in a small village,on a high hill,by the sea,in an old castle,"
    "on a quiet farm,at the edge of the woods,in a big city,under an old oak tree,on a tiny island,"
    "in a warm valley,behind a red house"
)
TREASURES = phrases(
    "a golden key,a red ball,a shiny stone,an old map,a silver bell,a warm scarf,a blue kite,a little lamp,"
    "a wooden box,a green hat,a lost letter,a sweet apple,a music box,a strange egg"
)
SKILLS = terms("swim fly sing dance climb read paint bake jump whistle skate write")
WEATHERS = (
    "One sunny morning",
    "One rainy day",
    "One cold night",
    "One warm evening",
    "On a windy day",
    "Early one morning",
    "One day",
)
ENDINGS = (
    "From that day on, they were best friends.",
    "And everyone was happy.",
    "That night, {n} slept very well.",
    "{n} smiled and went home.",
    "They lived happily ever after.",
    "And {n} never forgot that day.",
    "The end.",
    "After that, {n} was never lonely again.",
    "{n} told the story for many years.",
    "It was the best day of all.",
)
LESSONS = (
    "{n} learned that it is good to share.",
    "{n} learned that friends help each other.",
    "{n} learned that being brave means trying again.",
    "{n} learned that small steps lead to big things.",
    "{n} learned that it is fine to ask for help.",
    "{n} learned that kindness always comes back.",
)
OPENINGS = (
    "Once upon a time, there was a {t} {a} named {n}. {n} lived {p}.",
    "Once there was a {t} {a} named {n} who lived {p}.",
    "{P} lived a {t} {a}. Everyone called the {a} {n}.",
    "A {t} {a} named {n} lived {p}.",
    "Long ago, a {t} {a} lived {p}. The name of the {a} was {n}.",
)
MOODS = (
    "Every day, {n} liked to walk and look at the clouds.",
    "{n} loved to play outside.",
    "{n} had a soft bed and a small garden.",
    "{n} liked the smell of the flowers.",
    "In the morning, {n} always drank a cup of tea.",
    "{n} was always looking for something new.",
    "{n} knew every tree and every stone.",
)
LOST = (
    "{w}, {n} could not find {x}. {n} looked under the bed and behind the door.",
    "{w}, {x} was gone. {n} was very sad.",
    "{w}, {n} lost {x} on the way home.",
)
FOUND = (
    '{w}, {n} found {x} in the grass. "Whose is this?" asked {n}.',
    "{w}, {n} saw {x} under a bush. It was not a common thing.",
    "{w}, {n} went for a walk and found {x}.",
)
MEET = (
    'Then {n} met a {b} named {m}. "Can I help you?" asked {m}.',
    'On the path, {n} met {m}, a {u} {b}. "What is wrong?" asked {m}.',
    'A {u} {b} came by. "My name is {m}," said the {b}. "Let us look together."',
    '{n} asked a {b} named {m} for help. "Of course I will help you," said {m}.',
)
SEARCH = (
    "They looked near the river and behind the big rocks.",
    "They walked for a long time and asked everyone they met.",
    "Together they climbed a hill and looked in every direction.",
    "They looked here and there, but they saw nothing.",
    "They followed small footprints in the sand.",
    "The way was long, but they sang songs and were not afraid.",
)
FIND_IT = (
    "At last, {m} saw something in a tree. It was {x}!",
    "In the end, they found {x} next to an old well.",
    "Suddenly {n} stopped. There, between two stones, was {x}.",
    "Then {n} heard a sound. A bird had {x} in its nest.",
)
RETURN_IT = (
    '"That is mine!" said {m}. "I looked for it all day." {n} gave it back at once.',
    "It belonged to {m}, who was very happy to have it again.",
    "{m} told {n} that it was a gift from an old friend, and {n} gave it back.",
)
WANT_SKILL = (
    "{n} wanted to learn how to {s}, but it was not easy.",
    "More than anything, {n} wanted to {s}.",
    "All the others could {s}, but {n} could not.",
)
FAIL = (
    "{w}, {n} tried for the first time. It did not work, and {n} fell into the mud.",
    "{w}, {n} tried again and again, but nothing worked.",
    "{w}, {n} tried and failed. The others laughed.",
)
TEACH = (
    '"Do not worry," said {m}, a {u} {b}. "I will show you how to {s}."',
    '{m}, a {u} {b}, saw it. "You only need to practice," said {m}.',
    'Then a {b} named {m} said, "Try it slowly, one step at a time."',
)
LEARN = (
    "They practiced every day. After a week, {n} could {s} a little.",
    "{n} tried once more, and this time it worked!",
    "Day by day it got better, and soon {n} could {s} better than anyone.",
)
STORM = (
    "{w}, dark clouds came, and a big storm began. The wind was very strong.",
    "{w}, it started to rain and it did not stop. The water rose higher and higher.",
    "{w}, snow fell all night, and the door would not open.",
)
TROUBLE = (
    "{n} heard a cry for help. It was {m}, a {u} {b}, who could not get home.",
    "{m}, a {u} {b}, was alone outside and very cold.",
    "The house of {m}, a {u} {b}, was in danger.",
)
RESCUE = (
    '{n} took {x} and ran out into the storm. "Hold on!" called {n}.',
    "{n} was afraid, but went out anyway and took {m} by the hand.",
    '"Come to my house!" said {n}. They ran as fast as they could.',
)
CALM = (
    "Inside, they drank hot soup and waited. In the morning, the sun came out.",
    "Soon the storm was over, and there was a rainbow in the sky.",
    "When it was over, {m} thanked {n} and gave {n} {x}.",
)
ARCS = (
    (OPENINGS, MOODS, LOST, MEET, SEARCH, FIND_IT, LESSONS, ENDINGS),
    (OPENINGS, LOST, MEET, FIND_IT, ENDINGS),
    (OPENINGS, MOODS, FOUND, MEET, RETURN_IT, ENDINGS),
    (OPENINGS, WANT_SKILL, FAIL, TEACH, LEARN, LESSONS, ENDINGS),
    (OPENINGS, MOODS, WANT_SKILL, FAIL, TEACH, LEARN, ENDINGS),
    (OPENINGS, MOODS, STORM, TROUBLE, RESCUE, CALM, LESSONS, ENDINGS),
    (OPENINGS, STORM, TROUBLE, RESCUE, CALM, ENDINGS),
    (OPENINGS, FOUND, MEET, SEARCH, RETURN_IT, LESSONS, ENDINGS),
)
REQUESTS = (
    "Tell me a story about a {a}.",
    "Tell me a story about a {a}.",
    "Write a short story about a {a}.",
    "Tell me a short story about a {t} {a}.",
    "Can you tell me a story about a {a}?",
    "I would like to hear a story about a {a}.",
    "Write a story about a {a} named {n}.",
    "Tell me a story about a {a} called {n}.",
    "Make up a story about a {t} {a}.",
    "Write a tale about a {a}.",
    "Tell me a story about a {a} and a {b}.",
    "Write a short story about a {a} and a {b}.",
    "Tell me a story about {n}, a {t} {a}.",
)
OPEN_REQUESTS = (
    "Tell me a story.",
    "Write a short story.",
    "Once upon a time",
    "Tell me a bedtime story.",
    "Write a story for children.",
)


def story_parts(draw: Draw) -> tuple[list[str], dict[str, str]]:
    """The sentences of a story, beat by beat, and the words that fill them."""
    (hero, helper), treasure = draw.fresh(
        lambda: (draw.distinct(lambda: draw.pick(HEROES), 2), draw.pick(TREASURES)),
        key=lambda choice: f"{choice[0][0]}/{choice[1]}",
    )
    name, friend = draw.people(2)
    place = draw.pick(PLACES)
    slots = {
        "a": hero,
        "b": helper,
        "n": name,
        "m": friend,
        "t": draw.pick([trait for trait in TRAITS if trait != "old"]),
        "u": draw.pick(("friendly", "wise", "cheerful", "careful", "strong")),
        "p": place,
        "P": place[0].upper() + place[1:],
        "x": treasure,
        "s": draw.pick(SKILLS),
        "w": draw.pick(WEATHERS),
    }
    beats = [draw.pick(beat).format(**slots) for beat in draw.pick(ARCS)]
    return [_with_articles(beat) for beat in beats], slots


def _with_articles(text: str) -> str:
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def _layout(draw: Draw, beats: list[str]) -> str:
    if len(beats) > 5 and draw.chance(0.3):
        middle = len(beats) // 2
        return " ".join(beats[:middle]) + "\n\n" + " ".join(beats[middle:])
    return " ".join(beats)


def story(draw: Draw) -> Example:
    beats, slots = story_parts(draw)
    request = _with_articles(draw.pick(REQUESTS).format(**slots))
    expect = {"hero": slots["a"]}
    if draw.chance(0.12):
        request, expect = draw.pick(OPEN_REQUESTS), {}
    return Example("story", [user(draw.casual(request)), assistant(_layout(draw, beats))], expect=expect)


def continuation(draw: Draw) -> Example:
    beats, _ = story_parts(draw)
    cut = draw.integer(1, 2)
    request = draw.pick(("Continue this story: {}", "Continue: {}", "Finish this story: {}", "What happens next? {}"))
    answer = " ".join(beats[cut:])
    return Example("continue", [user(request.format(" ".join(beats[:cut]))), assistant(answer)])


def summary(draw: Draw) -> Example:
    beats, slots = story_parts(draw)
    text = _layout(draw, beats)
    request = draw.pick(
        ("Summarize this story: {}", "Summarise: {}", "Give me a short summary. {}", "Summarize in one sentence: {}")
    )
    answer = _with_articles("This is a story about a {a} named {n} and a {b} named {m}.".format(**slots))
    return Example("summary", [user(request.format(text)), assistant(answer)], expect={"contains": slots["n"]})


def title(draw: Draw) -> Example:
    beats, slots = story_parts(draw)
    answer = "{n} the {A}".format(n=slots["n"], A=slots["a"].capitalize())
    request = draw.pick(("Give this story a title: {}", "What is a good title for this story? {}"))
    return Example("title", [user(request.format(" ".join(beats[:3]))), assistant(answer)])


def plain_story(draw: Draw) -> Example:
    beats, _ = story_parts(draw)
    return Example("prose", text=_layout(draw, beats))
