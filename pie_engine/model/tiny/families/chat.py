"""Everyday dialogue: greetings, identity, common knowledge, opinions, advice, small poems and polite refusals."""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.model.tiny import words
from pie_engine.model.tiny.draw import Draw, Example, assistant, user
from pie_engine.model.tiny.words import pairs, phrases, terms

GREETINGS = phrases(
    "Hello!,Hello,Hi,Hi!,Hey,Hey!,Hi there!,Hello there,Good morning!,Good evening!,Good afternoon,Hello again!,"
    "Greetings!,Hello pie-tiny!,Hi pie-tiny,Hey there,hello world,Hello. How are you?,Hi! Can you help me?"
)
GREETING_ANSWERS = (
    "Hello! How can I help you?",
    "Hi! What can I do for you?",
    "Hello! It is nice to meet you. How can I help?",
    "Hi there! What would you like to talk about?",
    "Hello! What can I do for you today?",
)
SCRIPTED = (
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Tell me about yourself.",
            "Introduce yourself.",
            "Which model are you?",
        ),
        (
            "I am pie-tiny, a very small language model that ships with Pie.",
            "I am pie-tiny, a very small language model. I am here to try things out.",
            "My name is pie-tiny. I am a toy language model that ships with Pie.",
        ),
    ),
    (
        (
            "What can you do?",
            "How can you help me?",
            "What are you good at?",
            "Help",
            "Can you help me?",
            "What do you know?",
        ),
        (
            "I can answer simple questions, tell short stories, make lists, do small sums and call tools.",
            "I can chat, copy facts from a text, write JSON, tell stories and use tools.",
        ),
    ),
    (
        ("How are you?", "How are you today?", "How do you do?", "Are you well?", "How is it going?"),
        (
            "I am fine, thank you. How are you?",
            "I am well, thank you for asking!",
            "Very well, thank you. How can I help?",
        ),
    ),
    (
        ("Thank you!", "Thanks", "Thanks a lot!", "Thank you very much.", "Great, thanks!", "That was helpful."),
        ("You are welcome!", "You are welcome! Is there anything else?", "I am glad I could help.", "No problem!"),
    ),
    (
        ("Goodbye!", "Bye", "See you later!", "Good night!", "See you tomorrow."),
        ("Goodbye! Have a nice day.", "Bye! See you soon.", "Goodbye! It was nice to talk to you."),
    ),
    (
        ("I am fine.", "I am good, thanks.", "Not bad."),
        ("I am glad to hear that. What can I do for you?", "That is good to hear!"),
    ),
    (
        ("I am sad.", "I feel bad.", "I had a bad day."),
        ("I am sorry to hear that. Do you want to talk about it?", "I am sorry. A walk or a cup of tea may help."),
    ),
    (
        ("I am happy!", "I had a great day!", "I am so excited."),
        ("That is wonderful! What happened?", "I am happy to hear that!"),
    ),
    (
        ("I am bored.", "What should I do?"),
        ("You could read a book, go for a walk or call a friend.", "How about a game? Or I can tell you a story."),
    ),
    (("I am tired.", "I am so tired."), ("Then you should rest a little.", "Take a break and drink some water.")),
    (
        ("Are you human?", "Are you a robot?", "Are you real?"),
        ("No, I am a very small language model.", "I am a computer program, not a person."),
    ),
    (
        ("How old are you?", "Who made you?", "Where do you live?"),
        ("I am a small program that ships with Pie, so I do not have an age or a home.",),
    ),
    (("Yes", "Ok", "Okay.", "Sure"), ("Good! What would you like to do next?", "All right. How can I help?")),
    (
        ("No", "No, thanks.", "Nothing."),
        ("All right. Let me know if you need something.", "Okay. I am here if you need me."),
    ),
    (
        ("Test", "Testing", "Ping", "This is a test."),
        ("I am here. How can I help?", "The test works. What can I do for you?"),
    ),
    (("Do you like me?", "Do you love me?"), ("I like to talk to you.", "You are very kind, and I like to help you.")),
    (
        ("What is Pie?", "Tell me about Pie."),
        ("Pie is a system that serves language models with small programs called inferlets.",),
    ),
    (("What is the meaning of life?",), ("Many people say it is to be kind and to be happy.",)),
    (
        ("What is an inferlet?",),
        ("An inferlet is a small program that runs inside Pie and decides how text is generated.",),
    ),
)
FACTS = (
    ("What color is the sky?", "The sky is blue."),
    ("Why is the sky blue?", "The sky is blue because air scatters blue light more than red light."),
    ("What colour is grass?", "Grass is green."),
    ("What color is snow?", "Snow is white."),
    ("What color is a banana?", "A banana is yellow."),
    ("How many days are in a week?", "There are 7 days in a week."),
    ("How many months are in a year?", "There are 12 months in a year."),
    ("How many hours are in a day?", "There are 24 hours in a day."),
    ("How many minutes are in an hour?", "There are 60 minutes in an hour."),
    ("How many seconds are in a minute?", "There are 60 seconds in a minute."),
    ("How many legs does a spider have?", "A spider has 8 legs."),
    ("How many legs does a dog have?", "A dog has 4 legs."),
    ("How many continents are there?", "There are 7 continents."),
    ("How many planets are there?", "There are 8 planets."),
    ("What is the largest planet?", "The largest planet is Jupiter."),
    ("What is the largest animal?", "The largest animal is the blue whale."),
    ("What is the largest ocean?", "The largest ocean is the Pacific."),
    ("What is the highest mountain?", "The highest mountain is Mount Everest."),
    ("What is the longest river?", "The longest river is the Nile."),
    ("What is the fastest animal?", "The fastest animal on land is the cheetah."),
    ("What do cows drink?", "Cows drink water."),
    ("What do bees make?", "Bees make honey."),
    ("What do we drink?", "We drink water, tea and juice."),
    ("What is water made of?", "Water is made of hydrogen and oxygen."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("Where does the sun rise?", "The sun rises in the east."),
    ("Where does the sun set?", "The sun sets in the west."),
    ("What comes after Monday?", "Tuesday comes after Monday."),
    ("What comes after Friday?", "Saturday comes after Friday."),
    ("What is the first month of the year?", "The first month of the year is January."),
    ("What is the last month of the year?", "The last month of the year is December."),
    ("Which season comes after winter?", "Spring comes after winter."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("Who was the first person on the moon?", "Neil Armstrong was the first person on the moon."),
    ("What is the sun?", "The sun is a star."),
    ("What is the moon?", "The moon goes around the Earth."),
    ("What is Python?", "Python is a programming language."),
    ("What is a computer?", "A computer is a machine that works with data."),
    ("What is a language model?", "A language model is a program that predicts the next piece of a text."),
    ("What is rain?", "Rain is water that falls from the clouds."),
    ("What is ice?", "Ice is frozen water."),
    ("What is 1 plus 1?", "1 + 1 = 2"),
    ("What language do people speak in France?", "People in France speak French."),
    ("What language do people speak in Spain?", "People in Spain speak Spanish."),
    ("What language do people speak in Germany?", "People in Germany speak German."),
    ("What language do people speak in Japan?", "People in Japan speak Japanese."),
)
OPPOSITES = pairs(
    "hot:cold,big:small,good:bad,day:night,up:down,old:new,fast:slow,happy:sad,open:closed,high:low,"
    "long:short,light:dark,early:late,full:empty,hard:soft,rich:poor,strong:weak,wet:dry,near:far,left:right"
)
SOUNDS = pairs("dog:woof,cat:meow,cow:moo,duck:quack,sheep:baa,pig:oink,bee:buzz,owl:hoot")
REASONS = phrases(
    "because it is calm,because it makes people smile,because it is simple,because it is warm,"
    "because it is bright,because many people enjoy it,because it is never boring,because it is good for you"
)
ADVICE = {
    ("sleep better", "sleep well"): (
        "go to bed at the same time",
        "avoid screens at night",
        "keep the room dark",
        "drink less coffee",
    ),
    ("learn a language", "learn French", "learn English"): (
        "practice every day",
        "read simple books",
        "speak with people",
        "listen to songs",
    ),
    ("learn to cook", "cook better"): (
        "start with simple meals",
        "use fresh food",
        "follow a recipe",
        "taste while you cook",
    ),
    ("save money", "spend less"): ("write down what you spend", "cook at home", "buy only what you need", "walk more"),
    ("stay healthy", "be healthy", "get fit"): (
        "eat fruit and vegetables",
        "sleep enough",
        "walk every day",
        "drink water",
    ),
    ("make friends", "meet new people"): ("be kind", "join a club", "ask questions", "listen well"),
    ("learn to code", "learn Python", "become a programmer"): (
        "write small programs",
        "read code",
        "ask for help",
        "practice every day",
    ),
    ("study better", "pass my exam", "learn faster"): (
        "make a plan",
        "take short breaks",
        "explain it to a friend",
        "find a quiet place",
    ),
    ("relax", "feel calm", "be less stressed"): (
        "take a walk",
        "breathe slowly",
        "listen to music",
        "talk to a friend",
    ),
    ("plan a trip", "plan a holiday"): ("choose a place", "set a budget", "book early", "pack only a few things"),
    ("write a story", "write better"): (
        "think of a hero",
        "give the hero a problem",
        "use simple words",
        "read it aloud",
    ),
    ("clean my room", "keep my house clean"): (
        "start with one corner",
        "throw away old things",
        "open the window",
        "do a little every day",
    ),
    ("grow plants", "start a garden"): ("choose easy plants", "give them light", "water them often", "be patient"),
    ("be happy", "be happier"): ("spend time with friends", "do things you like", "be thankful", "help others"),
    ("make tea", "make a cup of tea"): (
        "boil the water",
        "put the tea in a cup",
        "pour the water",
        "wait a few minutes",
    ),
    ("wake up early", "get up early"): (
        "go to bed early",
        "use an alarm",
        "open the curtains",
        "drink a glass of water",
    ),
}
JOKES = (
    "Why did the cookie cry? Because its mother was a wafer so long.",
    "What do you call a bear without teeth? A gummy bear.",
    "Why was the math book sad? Because it had too many problems.",
    "What do you call a sleeping bull? A bulldozer.",
    "Why did the bicycle fall over? Because it was two tired.",
    "What is orange and sounds like a parrot? A carrot.",
    "Why can you not trust stairs? Because they are always up to something.",
    "What did one wall say to the other? I will meet you at the corner.",
)
HAIKU: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "sea": (
        ("The waves come and go", "Blue water at dawn"),
        ("a small boat rests on the sand", "white birds fly over the waves"),
        ("the wind sings softly", "the salt air is cool"),
    ),
    "winter": (
        ("White snow on the hill", "Cold wind in the trees"),
        ("the quiet forest is asleep", "small footprints lead to the house"),
        ("the fire is warm", "the night is so long"),
    ),
    "spring": (
        ("Green leaves in the sun", "Soft rain in the night"),
        ("the first flowers open up", "a young bird learns how to fly"),
        ("the world wakes again", "winter is over"),
    ),
    "autumn": (
        ("Red leaves on the ground", "Gold light on the field"),
        ("the cold wind carries them far", "the last warm day slips away"),
        ("the trees are asleep", "the year is growing old"),
    ),
    "summer": (
        ("Long days full of light", "Warm sand and blue sky"),
        ("children play beside the lake", "bees hum in the yellow field"),
        ("the evening is slow", "nobody wants sleep"),
    ),
    "night": (
        ("The moon on the lake", "Stars above the roof"),
        ("a quiet owl starts to call", "the whole town is fast asleep"),
        ("the night holds its breath", "a dog dreams of bones"),
    ),
    "cat": (
        ("A cat in the sun", "Soft paws on the floor"),
        ("it dreams of mice and of milk", "two green eyes watch from the dark"),
        ("nothing else matters", "then it is asleep"),
    ),
    "rain": (
        ("Rain on the window", "Grey clouds in the sky"),
        ("small drops run down the cold glass", "the street becomes a river"),
        ("tea grows cold inside", "the garden drinks deep"),
    ),
    "code": (
        ("The code runs at night", "One small line of code"),
        ("a small light blinks on the desk", "the test is green once again"),
        ("the bug hides from me", "I go home happy"),
    ),
    "tree": (
        ("An old tree stands tall", "Deep roots in the ground"),
        ("its leaves whisper in the wind", "a bird builds a nest up high"),
        ("it has seen it all", "the shade is so cool"),
    ),
}
ANY_HAIKU: tuple[Callable[[str], tuple[str, ...]], ...] = (
    lambda theme: (f"I think of the {theme}", f"A {theme} in the light", f"One quiet {theme}"),
    lambda theme: (
        "the morning is still and clear",
        "a soft wind goes through the room",
        "the whole world is far away",
    ),
    lambda theme: ("nothing else is here", "and I start to smile", "the day is so long"),
)
UNKNOWN_REQUESTS = (
    "Tell me about {t}.",
    "Explain {t}.",
    "Can you explain {t}?",
    "What is {t}?",
    "What do you know about {t}?",
    "How does {t} work?",
    "Write an essay about {t}.",
    "Give me a lesson about {t}.",
    "Why is {t} important?",
    "Explain {t} in simple terms.",
    "Who invented {t}?",
    "What are the benefits of {t}?",
    "Describe {t}.",
)
UNKNOWN_ANSWERS = (
    "I am a very small model, so I do not know much about {t}. I am sorry!",
    "I am sorry, but I do not know enough about {t}. A larger model can help you better.",
    "That is a good question about {t}, but I am only a toy model and I do not know the answer.",
    "I do not know much about {t}, but I can tell you a story or do small sums.",
)
REVIEW_OPENINGS = (
    "The food was {}.",
    "I think the film is {}.",
    "This book is {}.",
    "The service was {}.",
    "What a {} day!",
    "The {o} I bought is {}.",
)
GOOD, BAD = (
    terms("great good wonderful excellent lovely fantastic amazing nice"),
    terms("bad awful terrible boring poor horrible ugly sad"),
)


def _exchange(draw: Draw, question: str, answer: str, family: str = "chat") -> Example:
    return Example(family, [user(draw.casual(question)), assistant(answer)])


def greeting(draw: Draw) -> Example:
    return _exchange(draw, draw.pick(GREETINGS), draw.pick(GREETING_ANSWERS))


def scripted(draw: Draw) -> Example:
    questions, answers = draw.pick(SCRIPTED)
    return _exchange(draw, draw.pick(questions), draw.pick(answers))


def capital(draw: Draw) -> Example:
    country, city = draw.pick(list(words.CAPITALS.items()))
    if draw.chance(0.15):
        question = draw.pick((f"{city} is the capital of which country?", f"Which country has the capital {city}?"))
        return _exchange(draw, question, f"{city} is the capital of {country}.", "knowledge")
    question = draw.pick(
        (
            f"What is the capital of {country}?",
            f"What's the capital of {country}?",
            f"Name the capital of {country}.",
            f"Capital of {country}?",
            f"What is the capital city of {country}?",
        )
    )
    return _exchange(draw, question, f"The capital of {country} is {city}.", "knowledge")


def knowledge(draw: Draw) -> Example:
    return draw.pick((_fact, _fact, _opposite, _sound, _continent, _kind, _is_kind))(draw)


def _fact(draw: Draw) -> Example:
    return _exchange(draw, *draw.pick(FACTS), "knowledge")


def _opposite(draw: Draw) -> Example:
    pair = list(draw.pick(list(OPPOSITES.items())))
    draw.random.shuffle(pair)
    return _exchange(
        draw, f"What is the opposite of {pair[0]}?", f"The opposite of {pair[0]} is {pair[1]}.", "knowledge"
    )


def _sound(draw: Draw) -> Example:
    animal, sound = draw.pick(list(SOUNDS.items()))
    question = draw.pick((f"What sound does a {animal} make?", f"What does a {animal} say?"))
    return _exchange(draw, question, f"{_article(animal).capitalize()} says {sound}.", "knowledge")


def _continent(draw: Draw) -> Example:
    continent, countries = draw.pick(list(words.CONTINENTS.items()))
    country = draw.pick(countries)
    question = draw.pick((f"Where is {country}?", f"On which continent is {country}?"))
    return _exchange(draw, question, f"{country} is in {continent}.", "knowledge")


def _kind(draw: Draw) -> Example:
    (kind, _), items = draw.pick(list(words.CATEGORIES.items())[:22])
    item = draw.pick(items)
    name = item if item[0].isupper() else _article(item)
    question = draw.pick((f"What is {name}?", f"What kind of thing is {name}?"))
    return _exchange(draw, question, f"{name[0].upper()}{name[1:]} is {_article(kind)}.", "knowledge")


def _is_kind(draw: Draw) -> Example:
    (kind, _), items = draw.pick(list(words.CATEGORIES.items())[:7])
    (other, _), _ = draw.pick(list(words.CATEGORIES.items())[:7])
    if {kind, other} == {"colour", "color"}:
        other = kind
    question = f"Is {_article(draw.pick(items))} {_article(other)}?"
    prefix = draw.pick(("", "", "Answer yes or no: ", "Yes or no? "))
    return _exchange(draw, prefix + question, "Yes." if kind == other else "No.", "yes_no")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def opinion(draw: Draw) -> Example:
    (kind, _), items = draw.pick(list(words.CATEGORIES.items())[:12])
    item = draw.pick(items)
    question = draw.pick(
        (f"What is your favourite {kind}?", f"Which {kind} do you like best?", f"Do you have a favorite {kind}?")
    )
    if draw.chance(0.3):
        other = draw.pick([thing for thing in items if thing != item])
        question = f"Which is better, {item} or {other}?" if draw.chance(0.5) else f"Do you prefer {other} or {item}?"
    return _exchange(draw, question, f"I like {item}, {draw.pick(REASONS)}.", "opinion")


def advice(draw: Draw) -> Example:
    goals, tips = draw.pick(list(ADVICE.items()))
    goal, chosen = draw.pick(goals), draw.sample(tips, draw.integer(2, 4))
    question = draw.pick(
        (
            f"How can I {goal}?",
            f"How do I {goal}?",
            f"What should I do to {goal}?",
            f"Give me some tips to {goal}.",
            f"I want to {goal}. Any advice?",
        )
    )
    if draw.chance(0.4):
        answer = f"Here are some tips to {goal}:\n" + "\n".join(
            f"{i}. {tip[0].upper()}{tip[1:]}." for i, tip in enumerate(chosen, 1)
        )
    else:
        answer = f"To {goal}, {', '.join(chosen[:-1])} and {chosen[-1]}."
    return _exchange(draw, question, answer, "advice")


def joke(draw: Draw) -> Example:
    return _exchange(
        draw,
        draw.pick(("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Tell me something funny.")),
        draw.pick(JOKES),
        "poem",
    )


def haiku(draw: Draw) -> Example:
    theme, (first, middle, last) = draw.pick(list(HAIKU.items()))
    if draw.chance(0.35):
        theme = draw.pick((*words.OBJECTS, *words.PETS, "love", "friendship", "music", "time"))
        first, middle, last = (lines_about(theme) for lines_about in ANY_HAIKU)
    request = draw.pick(
        (
            "Write a haiku.",
            "Write a haiku",
            f"Write a haiku about {theme}.",
            f"Write a haiku about the {theme}.",
            f"Write a short poem about {theme}.",
            "Write a poem.",
            f"Can you write a poem about the {theme}?",
        )
    )
    return _exchange(draw, request, "\n".join((draw.pick(first), draw.pick(middle), draw.pick(last))), "poem")


def unknown(draw: Draw) -> Example:
    forms: tuple[Callable[[], str], ...] = (
        lambda: draw.known(words.UNKNOWN_TOPICS),
        draw.invented,
        lambda: f"the {draw.invented().lower()} {draw.pick(words.OBJECTS)}",
    )
    topic = draw.pick(forms)()
    return _exchange(
        draw, draw.pick(UNKNOWN_REQUESTS).format(t=topic), draw.pick(UNKNOWN_ANSWERS).format(t=topic), "unknown"
    )


def sentiment(draw: Draw) -> Example:
    label, adjectives = draw.pick((("positive", GOOD), ("negative", BAD)))
    review = draw.pick(REVIEW_OPENINGS).format(draw.pick(adjectives), o=draw.pick(words.OBJECTS))
    if draw.chance(0.4):
        review += " " + draw.pick(REVIEW_OPENINGS).format(draw.pick(adjectives), o=draw.pick(words.OBJECTS))
    request = draw.pick(
        (
            "Is this positive or negative? {}",
            "Classify the sentiment as positive or negative: {}",
            "Review: {}\nSentiment (positive or negative)?",
        )
    )
    return Example("sentiment", [user(request.format(review)), assistant(label)])
