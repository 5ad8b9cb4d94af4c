"""Word tables that the corpus families draw from: plain data, but for the three readers of it."""


def terms(text: str) -> tuple[str, ...]:
    """Single words, separated by spaces."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Entries that may hold spaces, separated by commas."""
    return tuple(text.split(","))


def pairs(text: str) -> dict[str, str]:
    """Entries `key:value`, separated by commas."""
    return dict(entry.split(":", 1) for entry in phrases(text))


FIRST_NAMES = terms(
    "Alice Amir Anna Anton Ben Bella Carl Clara Dana Daniel David Diego Dina Elena Eli Emil Emma Eric Eva "
    "Felix Fiona Frank George Grace Hana Hans Helen Henry Hugo Ida Igor Ines Ivan Jack Jane Jin John Jonas "
    "Julia Kai Karim Kate Kim Laila Lara Leo Lily Lina Louis Lucy Luis Mara Marco Maria Mark Martha Max Maya "
    "Mei Mia Mila Milo Nadia Nina Noah Nora Olga Oliver Omar Oscar Otto Paul Pedro Peter Petra Priya Rita "
    "Robin Rosa Ruth Sam Sara Simon Sofia Stella Sven Tara Theo Tim Tina Tom Uma Vera Victor Wanda Will Yara "
    "Yuki Zoe"
)

CITIES = phrases(
    "Paris,London,Berlin,Rome,Madrid,Lisbon,Vienna,Oslo,Athens,Dublin,Prague,Warsaw,Tokyo,Seoul,Cairo,Lima,"
    "Boston,Chicago,Denver,Seattle,Austin,Miami,New York,San Francisco,Los Angeles,Toronto,Montreal,Sydney,"
    "Melbourne,Mumbai,Delhi,Beijing,Shanghai,Munich,Hamburg,Zurich,Geneva,Milan,Venice,Naples,Lyon,Nice,"
    "Porto,Seville,Barcelona,Oxford,Cambridge,York,Leeds,Glasgow,Bergen,Malmo,Turku,Riga,Vilnius,Tallinn,"
    "Lagos,Nairobi,Accra,Tunis,Dubai,Istanbul"
)

CAPITALS = pairs(
    "France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Portugal:Lisbon,Austria:Vienna,Norway:Oslo,"
    "Sweden:Stockholm,Denmark:Copenhagen,Finland:Helsinki,Greece:Athens,Ireland:Dublin,Poland:Warsaw,"
    "Hungary:Budapest,Belgium:Brussels,Russia:Moscow,Ukraine:Kyiv,Turkey:Ankara,Egypt:Cairo,Kenya:Nairobi,"
    "Japan:Tokyo,China:Beijing,India:New Delhi,Thailand:Bangkok,Vietnam:Hanoi,Canada:Ottawa,"
    "Mexico:Mexico City,Cuba:Havana,Peru:Lima,Chile:Santiago,Argentina:Buenos Aires,Australia:Canberra,"
    "South Korea:Seoul,the United Kingdom:London,England:London,the United States:Washington,"
    "Switzerland:Bern,the Netherlands:Amsterdam,Brazil:Brasilia,Iceland:Reykjavik"
)

CONTINENTS = {
    "Europe": terms("France Germany Italy Spain Portugal Austria Norway Sweden Denmark Finland Greece Poland Iceland"),
    "Asia": terms("Japan China India Thailand Vietnam"),
    "Africa": terms("Egypt Kenya"),
    "South America": terms("Brazil Peru Chile Argentina"),
}

COLOURS = terms("red blue green yellow orange purple pink brown black white grey silver golden")

CATEGORIES = {
    (
        "fruit",
        "fruits",
    ): terms("apple pear plum banana orange lemon grape cherry peach mango melon kiwi fig lime apricot"),
    (
        "vegetable",
        "vegetables",
    ): terms("carrot potato onion pea bean tomato cabbage leek radish spinach pumpkin celery"),
    ("animal", "animals"): terms("cat dog fox bear wolf horse cow sheep pig goat rabbit mouse lion tiger deer frog"),
    ("bird", "birds"): terms("owl eagle duck swan robin crow hawk parrot goose sparrow penguin"),
    ("fish", "fish"): terms("salmon trout tuna cod shark herring carp eel"),
    ("insect", "insects"): terms("ant bee fly wasp moth beetle butterfly cricket"),
    ("colour", "colours"): terms("red blue green yellow orange purple pink brown black white"),
    ("color", "colors"): terms("red blue green yellow orange purple pink brown black white"),
    ("flower", "flowers"): terms("rose tulip daisy lily poppy violet iris sunflower orchid"),
    ("tree", "trees"): terms("oak pine birch maple willow elm ash cedar"),
    ("drink", "drinks"): terms("water tea coffee milk juice lemonade cocoa"),
    ("sport", "sports"): terms("football tennis hockey golf rugby swimming running rowing boxing basketball"),
    ("planet", "planets"): terms("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune"),
    (
        "month",
        "months",
    ): terms("January February March April May June July August September October November December"),
    ("season", "seasons"): terms("spring summer autumn winter"),
    ("tool", "tools"): terms("hammer saw drill wrench screwdriver axe shovel rake"),
    ("instrument", "instruments"): terms("piano guitar violin flute drum trumpet harp cello"),
    ("country", "countries"): terms("France Germany Italy Spain Japan China India Brazil Canada Mexico Egypt Kenya"),
    ("job", "jobs"): terms("teacher doctor nurse baker farmer pilot cook painter writer driver"),
    ("shape", "shapes"): terms("circle square triangle rectangle star oval diamond"),
    ("metal", "metals"): terms("iron gold silver copper tin zinc lead nickel"),
    ("vehicle", "vehicles"): terms("car bus train bicycle boat plane truck tram"),
    ("programming language", "programming languages"): terms("Python Rust Java Go Ruby Swift Kotlin Lua"),
    ("piece of furniture", "pieces of furniture"): terms("table chair bed sofa desk shelf lamp wardrobe"),
    ("city", "cities"): terms("Paris London Berlin Rome Madrid Tokyo Cairo Lima Oslo Vienna"),
    ("food", "foods"): terms("bread cheese rice soup pasta salad pizza cake honey butter"),
}

JOBS = terms(
    "teacher doctor nurse baker farmer pilot cook painter writer driver singer gardener sailor lawyer "
    "engineer librarian tailor dentist"
)
PETS = terms("cat dog rabbit parrot hamster goldfish turtle pony mouse lizard")
HOBBIES = terms("chess painting running cooking reading swimming fishing dancing singing knitting hiking gardening")
OBJECTS = terms(
    "lamp book chair kettle bag clock box key hat coat cup pen bottle basket mirror drum kite candle bell "
    "coin map ring ladder bucket pillow spoon radio camera phone bicycle table shirt scarf umbrella blanket"
)
THINGS = terms(
    "apples pears books coins stones pens cards marbles eggs cups keys stamps shells cookies flowers balls hats"
)

ONSETS = terms("b d f g h k l m n p r s t v w z br dr gr kr tr st sh th bl fl kl pl qu j y")
VOWELS = terms("a e i o u a e i o ai ea ou")
CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd", "rk", "th"]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You are a helpful, friendly assistant.",
    "You are a concise assistant.",
    "You are a friendly assistant. Keep your answers short.",
    "You are a kind and careful assistant.",
    "You are a small model that answers in simple words.",
    "Answer the question.",
    "Answer briefly.",
    "Be brief and clear.",
    "You are an expert assistant. Think before you answer.",
    "You help people with simple tasks.",
    "You are a polite assistant for a small shop.",
    "You are a chatbot.",
    "Be helpful.",
    "You are pie-tiny, a small language model.",
    "You are an assistant that always tells the truth.",
    "Follow the instructions of the user.",
)
STYLES = (
    "Use short sentences.",
    "Always be polite.",
    "Answer in English.",
    "Speak like a good friend.",
    "Do not make things up.",
    "If you do not know something, say so.",
    "Keep it simple.",
    "Today is a nice day.",
    "Give clear answers.",
)
DEFAULT_SYSTEM_PROMPT = SYSTEM_PROMPTS[0]

UNKNOWN_TOPICS = phrases(
    "quantum physics,the stock market,black holes,the Roman Empire,machine learning,chemistry,"
    "the human brain,volcanoes,the French Revolution,jazz music,philosophy,electric cars,ancient Greece,"
    "neural networks,the universe,dinosaurs,blockchain,genetics,the Cold War,photography,opera,medicine,law,"
    "economics,politics,climate change,relativity,biology,astronomy,football history,operating systems,"
    "databases,compilers,cooking school,architecture,poetry,modern art,the internet,space travel,robots,"
    "submarines,bridges,vaccines,the deep sea,mathematics,psychology,the theory of evolution,gravity,atoms,"
    "computer chips,large language models,transformers,GPUs,WebAssembly"
)
