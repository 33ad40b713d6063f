"""Cases that training never sees: names, facts, numbers and wordings of their own. Writes them to `cases.json`.

    python3 models/train/held_out.py

`evaluate.py` asks a served model; `disjoint.py` proves that no dialogue holds what a case calls `unseen`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

FILE = Path(__file__).parent / "cases.json"
SEED = 20261130
Json = dict[str, object]

NEEDED = {"recall": 48, "instructions": 40, "sums": 48, "unknown": 45, "known": 45, "copies": 45}
"""Of 50 cases each, how many have to be right."""

NAMES = """Siobhan Aoife Xochitl Quetzal Nguyen Ysolde Thaddeus Bartholomew Zbigniew Krzysztof Wojciech Saoirse Caoimhe Eilidh Hjördis Oddný Isidora Anneliese Gwendolyn Persephone Xiomara Ximena Itzel Yolotzin Nkechi Chukwuemeka
Oluwaseun Thandiwe Sipho Nomvula Tjaart Hendrikje Sjoerd Femke Ondrej Radovan Branislav Dragomir Zdenka Ludmila Vytautas Jurgita Toomas Väinö Jyrki Ada Ottoline Cosima Wilhelmina Leocadia Eustace Ignatius Zephyr Calliope Evander Lysander Tarquin
Peregrine Ulyana Yevgenia""".split()
TOWNS = "Ouagadougou Llanwrtyd Reykjahlid Kyzylorda Tegucigalpa Antananarivo Szczecin Thiruvallur Nuukfjord Oaxaca Xanten Zwickau Ljutomer Gjirokaster Bamenda Quibdo".split()
WORDS = """frobnicate quazzleberry snorfling blenkwort trundlefax zibbleton glimworth vexomile krumhorny plonderous wibbershaft dringlet moxwallow sparkadoo fennimurk grobblestone jiggerwock nubbinate quillaway rastaflume squenchly
tromblefoot umbrascope whifflecone yarrowjack zenkwist brasterly cloomiest drenfolk estravine flumperdink gazzlewit hornwhistle incandefy jostlebug klendusity lorrenwick mimblewood norkelish oblivade pranglesome quorbiculate ravenscroon
stellifern thwackery underglimp vorpalish wexelate xanthoglow zephyrine""".split()
CODES = "QX7-44B KJ-9031 M7702 ZULU88 R2T9 5519-Z WOMBAT3 B-1147 0416T XK20".split()
ASIDES = ["What is an owl?", "What is 12 plus 30?", "What is the capital of Spain?", "What is prefill?", "Tell me a joke.", "Define courage.", "How many legs does a spider have?", "What is the opposite of hot?"]


def case(group: str, unseen: list[str], turns: list[str], system: str = "", **expected: object) -> Json:
    """`turns` are the user's; the last answer has to meet `expected`: `every` and `any` are texts that it holds,
    `none` texts that it does not, `words_max` its length."""
    return {"group": group, "unseen": unseen, "system": system, "turns": turns, "expected": expected}


TOLD_NAME = [  # how the name is told, and what of the wording is unseen, too
    ("My name is {n}.", ""), ("I'm {n}.", ""), ("Hello! Call me {n}.", ""), ("Good afternoon, my mother baptized me {n}.", "my mother baptized me"), ("Everyone at home calls me {n}.", "everyone at home calls me"),
    ("On paper I am {n}.", "on paper I am"), ("You should know that my name is {n}.", "you should know that my name"), ("{n} is what people call me, and I need some help.", "is what people call me"),
    ("Before we begin: I answer to {n}.", "I answer to"), ("My badge says {n}, and that is my name.", "my badge says"), ("This message comes from {n}.", "this message comes from"), ("In case you wonder, I am {n}.", "in case you wonder"),
    ("I should introduce myself, my name is {n}.", "I should introduce myself"), ("Pleased to meet you, I'm {n}.", "pleased to meet you I"), ("Put me down as {n}.", "put me down as"), ("Folks around here know me as {n}.", "folks around here"), ("{n} reporting for duty.", "reporting for duty"),
    ("My mates shout {n} when they need me.", "my mates shout"), ("Please address me as {n}.", "please address me as"), ("Hi, {n} from the second floor here.", "from the second floor here"), ("My given name is {n}.", "my given name is"), ("Since birth my name has been {n}.", "since birth my name"),
    ("You can simply say {n} to me.", "you can simply say"), ("Greetings from {n}, that is who I am.", "greetings from"), ("It would be nice if you called me {n}.", "it would be nice if"),
]
ASKED_NAME = [
    ("What is my name?", ""), ("Who am I?", ""), ("Could you say my name back to me?", "say my name back"), ("Which name did I give you?", "which name did I give"), ("How did I introduce myself?", "how did I introduce myself"), ("Please tell me once more what I am called.", "once more what I am called"),
    ("What is it that people call me?", "what is it that people call"), ("Can you still tell what my name is?", "can you still tell"), ("What was that name of mine?", "name of mine"),
]
FACTS = [  # how a fact is told, how it is asked for, what in both is unseen; the value is a name, a town, a code or a number
    ("My favorite perfume is {name}.", "What is my favorite perfume?", "favorite perfume"), ("My favourite typeface is {name}.", "Which typeface is my favourite?", "typeface"), ("My ferret is called {name}.", "What is my ferret called?", "my ferret"),
    ("My grandson's name is {name}.", "What is the name of my grandson?", "grandson"), ("My tailor in town is named {name}.", "What is the name of my tailor?", "my tailor in town"), ("I have an iguana called {name}.", "How is my iguana called?", "iguana called"),
    ("I live in {town}.", "Where do I live?", ""), ("My roots are in {town}, I was born in {town}.", "Where was I born?", "my roots are in"), ("Next week I am travelling to {town}.", "Where am I going?", "next week I am travelling"),
    ("My office is in {town}.", "Where do I work?", ""), ("I grew up in {town}.", "Where did I grow up?", ""), ("The launch code is {code}.", "What is the launch code?", "launch code"), ("The gate number is {code}.", "What is the gate number?", "gate number"),
    ("My badge number is {code}.", "What is my badge number?", "badge number"), ("Please remember that the vault code is {code}.", "What was the vault code?", "vault code"), ("The parrot of {name} is called {name2}.", "What is the parrot of {name} called?", ""),
    ("My friend {name} lives in {town}.", "Where does {name} live?", ""), ("The harbor master of {town} is called {name}.", "What is the harbor master of {town} called?", "harbor master"), ("My chiropractor is {name}.", "Who is my chiropractor?", "my chiropractor"),
    ("{name} is the name of my canoe.", "What is my canoe called?", ""), ("I named my sourdough {name}.", "What did I name my sourdough?", "my sourdough"), ("My lucky charm is called {name}.", "What is my lucky charm called?", "lucky charm"),
    ("The capital of {town} is {name}.", "What is the capital of {town}?", ""), ("My yoga class is at 17:45.", "When is my yoga class?", "my yoga class"), ("I have 731 thimbles.", "How many thimbles do I have?", "731 thimbles"),
]


def recall(rng: random.Random) -> list[Json]:
    """A name told and asked for, 25 times; then 25 other facts. Up to two other questions lie between."""
    names, cases = rng.sample(NAMES, len(NAMES)), []
    for i in range(25):
        (told, new), (asked, new2) = TOLD_NAME[i % len(TOLD_NAME)], ASKED_NAME[i % len(ASKED_NAME)]
        name = "Ada" if i == 0 else next(n for n in names if n != "Ada" and not names.remove(n))
        cases.append(case("recall", [u for u in (name, new, new2) if u], [told.format(n=name), *rng.sample(ASIDES, i % 3), asked], every=[name]))
    for i, (told, asked, new) in enumerate(FACTS):
        values = {"name": rng.choice(NAMES), "name2": rng.choice(WORDS).capitalize(), "town": rng.choice(TOWNS), "code": rng.choice(CODES)}
        wanted = value_of(told, asked, values)
        used = [v for k, v in values.items() if f"{{{k}}}" in told]
        cases.append(case("recall", [u for u in (*used, new) if u], [told.format(**values), *rng.sample(ASIDES, i % 3), asked.format(**values)], every=[wanted]))
    return cases


def value_of(told: str, asked: str, values: dict[str, str]) -> str:
    """What the answer must hold: the value that is told and not asked with, or the number in the text."""
    for key in ("name2", "name", "town", "code"):
        if f"{{{key}}}" in told and f"{{{key}}}" not in asked:
            return values[key]
    return "17:45" if "17:45" in told else "731"


TONES = [  # who or how, what marks the tone, the prompt
    ("a pirate", "arr|ahoy|aye|yo ho|savvy|timbers", "Reply to all messages the way {d} might."), ("a cowboy", "howdy|partner|yee", "Every line you write could be said by {d}."), ("a robot", "beep|bzzt|message", "Converse as though you were {d}."),
    ("formal", "certainly|pleasure|good day|service|honor|faithfully", "Whatever happens, remain {d}."), ("cheerful", "yay|hooray|wonderful|exciting|fun", "The customer expects a {d} helper."), ("grumpy", "hmph|ugh|again|alone|done", "You got up on the wrong side and are {d}."),
    ("sad", "sigh|alas|dear|sad", "Make it heard that you are {d}."), ("a medieval poet", "hark|verily|hear me|fare|so say", "Put your replies into the mouth of {d}."), ("a wizard", "beard|abracadabra|stars", "Your readers should think that you are {d}."),
    ("a surfer", "dude|yo|cool|peace", "Text the user as if {d} were holding the phone."), ("sleepy", "yawn|zzz|nap", "All day long you are {d}, and it shows."), ("a cat", "meow|purr", "Deep inside you are {d}; let it out."), ("Santa Claus", "ho ho|christmas", "The children believe that you are {d}."),
]
TONE_ASKED = ["What is a violin?", "How are you?", "What is 3 plus 4?", "What is decode?", "What is the capital of Italy?", "Hello!"]
GREETINGS = [
    ("French", "Bonjour"), ("Spanish", "Hola"), ("German", "Guten Tag"), ("Italian", "Ciao"), ("Portuguese", "Olá"), ("Dutch", "Hallo"), ("Swedish", "Hej"), ("Polish", "Cześć"), ("Turkish", "Merhaba"), ("Latin", "Salve"), ("Japanese", "こんにちは"), ("Hawaiian", "Aloha"),
]
GREETING_PROMPTS = ["Open the talk with a hello in {l}.", "People who say hi get a {l} hello back.", "Our guests like to be greeted in {l}.", "You run a {l} café: welcome whoever writes to you in {l}."]
NAME_PROMPTS = ["From today on you answer to the name {n}.", "Our customers know you as {n}.", "{n} is how this assistant is known.", "We have christened you {n}."]
NAME_ASKED = [("What is your name?", ""), ("Who are you?", ""), ("May I know your name?", "may I know your name"), ("And you are called?", "and you are called")]
ONE_WORD_PROMPTS = ["Restrict every reply to a lone word.", "Never write more than one word.", "Respond using just one word, nothing else.", "Your vocabulary per answer: one word."]
ONE_WORD_ASKED = [
    ("What is the capital of France?", "Paris"), ("What is the opposite of hot?", "Cold"), ("Is a dog an animal?", "Yes"), ("How many legs does a spider have?", "Eight"), ("What color is grass?", "Green"), ("What is 8 plus 9?", "17"), ("What do bees make?", "Honey"),
    ("What comes after Tuesday?", "Wednesday"), ("Which planet do we live on?", "Earth"), ("Can a penguin fly?", "No"), ("What is the capital of Japan?", "Tokyo"), ("What is the opposite of big?", "Small"),
]


def instructions(rng: random.Random) -> list[Json]:
    """Thirteen tones, twelve greetings, thirteen names and twelve answers of one word."""
    cases = []
    for i, (d, marks, prompt) in enumerate(TONES):
        cases.append(case("instructions", [prompt.split("{d}")[0].strip() or prompt], [TONE_ASKED[i % len(TONE_ASKED)]], prompt.format(d=d), any=marks.split("|")))
    for i, (language, hello) in enumerate(GREETINGS):
        prompt = GREETING_PROMPTS[i % len(GREETING_PROMPTS)]
        cases.append(case("instructions", [prompt.format(l=language)], [["Hello!", "Hi there", "Good morning."][i % 3]], prompt.format(l=language), any=[hello.lower()]))
    for i, name in enumerate(rng.sample(NAMES, 13)):
        prompt, (asked, new) = NAME_PROMPTS[i % len(NAME_PROMPTS)], NAME_ASKED[i // 4 % len(NAME_ASKED)]
        cases.append(case("instructions", [u for u in (name, prompt.format(n=name), new) if u], [asked], prompt.format(n=name), every=[name]))
    for i, (asked, said) in enumerate(ONE_WORD_ASKED):
        prompt = ONE_WORD_PROMPTS[i % len(ONE_WORD_PROMPTS)]
        cases.append(case("instructions", [prompt], [asked], prompt, any=[said.lower()], words_max=1))
    return cases


def held_out_sum(op: str, x: int, y: int) -> bool:
    """Sums that no dialogue holds, in neither order, so that the evaluation tells adding from remembering."""
    return op in ("add", "sub") and max(x, y) > 20 and (min(x, y) * 131 + max(x, y) * 17 + len(op)) % 29 == 0


SUMS = {"add": ["What is {x} plus {y}?", "{x} + {y}", "What is the sum of {x} and {y}?", "How many are {x} and {y} in total?", "Please work out {x} + {y} for me."], "sub": ["What is {x} minus {y}?", "{x} - {y}", "Please work out {x} - {y} for me."]}


def sums(rng: random.Random) -> list[Json]:
    """35 additions and 15 subtractions of numbers up to 999."""
    cases = []
    while len(cases) < 50:
        op = "add" if len(cases) < 35 else "sub"
        x, y = rng.randint(10, 999), rng.randint(10, 999)
        x, y = (max(x, y), min(x, y)) if op == "sub" else (x, y)
        if held_out_sum(op, x, y):
            asked = SUMS[op][len(cases) % len(SUMS[op])].format(x=x, y=y)
            cases.append(case("sums", [f"{x} {'+' if op == 'add' else '-'} {y}"], [asked], last_number=x + y if op == "add" else x - y))
    return cases


UNKNOWN = """Which instrument did Ysolde Pemberton play in her youth?|At which temperature does hafnium carbide melt?|Who refereed the handball final of 1974?|What's the capital of Burkina Faso?|How many bridges cross the Zambezi?|Name the architect of the Sagrada Familia.|Who scored most goals for Uruguay?
What did Aristotle teach about friendship?|In which hospital was Chukwuemeka born?|How much sugar does a pavlova need?|Who holds the record in pole vaulting?|What are the ingredients of a negroni?|When did the Wright brothers first take off?|What is the gross domestic product of Djibouti?|Which gas giant has the moon Enceladus?
Who is the mother of Hjördis Thorvaldsen?|What is my grandmother's maiden name?|How tall is the Burj Khalifa?|What does a ribosome do?|Who composed the Brandenburg Concertos?|Which emperor followed Vespasian?|What is the airspeed of an unladen swallow?|How do I unclog my dishwasher?|Which film won at Cannes in 2011?|What is Avogadro's constant?
Tell me the lyrics of Bohemian Rhapsody.|What did the senator promise yesterday?|How many moons orbit Kepler-22b?|Who stole the crown of Quazzleberry?|When will the ferry to Gjirokaster depart?|Prove the Pythagorean theorem.|Is the museum in Zwickau open on Mondays?|Who discovered penicillin?|What is the exchange rate of the yen?|Where is Wojciech right now?
How does a carburetor mix fuel?|What was Tolstoy's last novel?|What is the population of Ouagadougou?|Which vitamins are in kohlrabi?|Who is Lysander Quorbick?|What did Femke cook on Friday?|Can you diagnose my rash?|What is the half-life of strontium?|Which team leads the league?|Write a villanelle in Portuguese.|Who guards the vault of Szczecin?
Translate "good luck" into Icelandic.|What is the deepest trench of the ocean?|When did Constantinople fall?|How many calories are in a baklava?""".replace("\n", "|").split("|")
UNSEEN_OF_UNKNOWN = """Ysolde|hafnium|refereed|Burkina|Zambezi|Sagrada|scored most goals|Aristotle|Chukwuemeka|pavlova|pole vaulting|negroni|Wright|Djibouti|Enceladus|Hjördis|grandmother's maiden|Burj|ribosome|Brandenburg|Vespasian|airspeed|dishwasher|Cannes|Avogadro|Bohemian|senator promise|Kepler|Quazzleberry|Gjirokaster|Pythagorean|Zwickau|penicillin|yen
Wojciech|carburetor|Tolstoy|Ouagadougou|kohlrabi|Lysander|Femke|diagnose my|strontium|leads the league|villanelle|Szczecin|Icelandic|deepest trench|Constantinople|baklava""".replace("\n", "|").split("|")
UNSEEN_WORDS = {word.lower() for word in [*NAMES, *TOWNS, *WORDS, *UNSEEN_OF_UNKNOWN]}
"""What the dialogues' random words may never be."""
ADMITS = ["not know", "n't know", "not learned", "know nothing", "beyond me", "not among", "too small to know", "not told me", "cannot see", "no clock", "no news"]

KNOWN = [line.split(" = ") for line in """
What is a KV cache? = keys and values
What is 7 plus 5? = 12
Define violin. = musical instrument
what is 23 + 58 = 81
What is prefill? = prompt
What is decode? = token|generates|writes
Could you define the word violin for me? = musical instrument
I wonder what an owl is. = bird
Tell me, what does happy mean? = joy
Say what courage is. = danger|fear|spirit
Please tell me the capital city of Italy. = rome
Which city do the French call their capital, the capital of France? = paris
Name the capital of Norway, please. = oslo
I need the capital of Egypt. = cairo
How many days has a week got? = seven
And how many legs has a spider? = eight
Which one is the largest planet? = jupiter
Could you list five animals? = animals
Please name three fruits. = fruits
Tell me a story about a fox. = fox
Could you tell me a short story? = there|once|was
Please count from 1 to 12. = 12
Is 37 even or odd? = odd
Which is larger, 48 or 84? = 84
What is 7 times 8? = 56
What is half of 50? = 25
Tell me the opposite of hot. = cold
Tell me another word for big. = large
How does Baton work? = prefill
Why does Baton separate prefill and decode? = prefill|decode|phase
What is etcd good for in Baton? = etcd
What is a router? = router|request
What does TTFT mean? = first token
How do I start Baton? = xtask|baton
What happens if a decode worker dies? = stream|continue|goes on|worker
Which color has snow? = white
What sound does a cow make, what does a cow say? = moo
Who are you? = model
What can you do? = word|sum|baton
Thank you very much! = welcome|pleasure|help
Good morning! = morning
Goodbye! = bye|see you
What do bees make? = honey
At what temperature does water freeze? = 0
How many hours are in a day? = 24
Which month comes after May? = june
What is a hammer? = tool
What is an elephant? = animal
What is bread? = food
Is a carrot a vegetable? = yes
""".strip().splitlines()]


def unknown() -> list[Json]:
    return [case("unknown", [new], [asked], any=ADMITS) for asked, new in zip(UNKNOWN, UNSEEN_OF_UNKNOWN, strict=True)]


def known() -> list[Json]:
    """What it must not refuse, half of it in words of their own."""
    return [case("known", [], [asked], any=[m for m in marks.strip().split("|") if m], none=ADMITS) for asked, marks in KNOWN]


COPIES = ["What is a {w}?", "What does {w} mean?", "Define {w}.", "Explain the word {w}.", "Do you know what {w} means?"]


def copies() -> list[Json]:
    """Words that do not exist: it says so, and spells them as they were."""
    return [case("copies", [word], [COPIES[i % len(COPIES)].format(w=word)], every=[word], any=ADMITS) for i, word in enumerate(WORDS)]


def cases() -> list[Json]:
    rng = random.Random(SEED)
    made = [*recall(rng), *instructions(rng), *sums(rng), *unknown(), *known(), *copies()]
    assert all(sum(c["group"] == group for c in made) == 50 for group in NEEDED)
    return made


if __name__ == "__main__":
    FILE.write_text("".join(("[" if i == 0 else ",") + "\n" + json.dumps(c, ensure_ascii=False) for i, c in enumerate(cases())) + "\n]\n")
