"""What can be told and asked for later: one function for each kind of fact, also used for what was never told.

Values are mostly invented, and things are anything, so that an answer can only be found by looking back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from held_out import UNSEEN_WORDS

from .lists import CATEGORIES, DAYS, MONTHS
from .names import invented, person, title, town
from .naming import MEET, ask_name, told_name
from .text import a, listed, plural
from .things import ADJECTIVES, JOBS, PERSONS, Things

WITH_TASTE = """color food animal season sport drink fruit flower book film band city number day month game song subject tree instrument toy dish hobby place bird language
painter writer singer actor team holiday island vegetable word poem planet museum cheese car river dance letter soup cake""".split()
NAMED = "dog cat horse parrot hamster boat car band company street school village team house rabbit goldfish shop hotel club ship garden project robot guitar cow pony bakery farm tortoise band".split()
SECRETS = "code|password|secret word|code word|pin|magic word|secret number|room number|order number|ticket number|passphrase|door code|customer number|seat|flight|license plate|wifi password|locker number|phone number|email address|zip code|account number|serial number|bus line|website|reference|booking number|membership number|lucky number|bike lock code|alarm number|desk number|platform".split("|")
EVENTS = "meeting|train|bus|flight|appointment|lesson|concert|exam|interview|party|dinner|match|lecture|ferry|call with my boss|dentist appointment|doctor's appointment|wedding|show|class".split("|")
BY = ["under", "behind", "in", "on", "next to", "beside", "near", "inside", "above", "between the lamp and", "on top of", "at", "opposite"]
HIDING = "under the bed|behind the clock|in the blue box|in the kitchen|on the roof|in the garage|under the mat|in my left pocket|in the drawer|on the second shelf|in the cellar|behind the mirror|next to the stove|in the car|in the attic|under the stairs|in the shed|beside the lamp".split("|")
COLORS = CATEGORIES["color"][1]
UNNAMED = "You have not told me your name."
KEPT = ["I will remember that.", "Good to know.", "Noted.", "Thank you, I will remember that.", "I have noted that.", "Thank you for telling me.", "All right, I will remember it.", "Understood."]


@dataclass
class Fact:
    """One thing that the user tells: how, and how it is asked for. `asks` and `missing` never hold the value."""

    told: str
    asks: list[str]
    said: str
    short: str
    missing: str
    acks: list[str] = field(default_factory=lambda: KEPT)
    again: Callable[[random.Random], str] | None = None
    """Draws another value of its kind, for those that a user may correct."""


def name(rng: random.Random, things: Things) -> Fact:
    n = person(rng)
    said = rng.choice([f"Your name is {n}."] * 4 + [f"You are {n}.", f"You told me that your name is {n}."])
    return Fact(told_name(rng, n, things), [ask_name(rng) for _ in range(3)], said, n, UNNAMED, [m.format(n=n) for m in MEET], person)


def taste(rng: random.Random, things: Things) -> Fact:
    x = rng.choice(WITH_TASTE) if rng.random() < 0.6 else things.thing(rng)
    v = rng.choice([invented(rng), invented(rng).lower(), rng.choice(CATEGORIES[x][1]) if x in CATEGORIES else invented(rng), title(rng, things.nouns) if x in ("book", "film", "song", "poem") else invented(rng)])
    f = rng.choice(["favorite", "favorite", "favourite"])
    told = rng.choice([f"My {f} {x} is {v}.", f"My {f} {x} is {v}.", f"I like the {x} {v} best.", f"The {x} I like most is {v}.", f"{v} is my {f} {x}.", f"I love {v}, it is my {f} {x}.", f"As for {plural(x)}, I like {v} best.", f"{v} is the {x} that I like most."])
    asks = [f"What is my {f} {x}?", f"Which {x} do I like best?", f"What {x} do I like most?", f"Do you remember my {f} {x}?", f"Tell me my {f} {x}.", f"What's my {f} {x}?", f"Which {x} is my {f}?", f"What was my {f} {x}?", f"Do you know which {x} I like most?", f"my {f} {x}?"]
    acks = [*KEPT, f"{v} is a fine {x}.", f"Noted: your {f} {x} is {v}.", f"I will remember that your {f} {x} is {v}.", f"I do not know {v}, but I will remember it."]
    return Fact(told, asks, f"Your {f} {x} is {v}.", v, f"You have not told me your {f} {x}.", acks, invented)


def relation(rng: random.Random, things: Things) -> Fact:
    """What somebody or something of the user's is called; other words may stand between it and its name."""
    who = rng.random() < 0.5
    x = things.someone(rng) if who else rng.choice(NAMED) if rng.random() < 0.3 else things.thing(rng)
    n, my = person(rng), "my" if rng.random() < 0.8 else "our"
    near = things.which(rng) if rng.random() < 0.4 else " "
    called = rng.choice(CALLED)
    told = rng.choice(["{My} {x}{near}{called} {n}."] * 3 + RELATION).format(My=my.capitalize(), my=my, x=x, n=n, near=near, called=called, ax=a(x), place=near if near.strip(" ")[:1] != "," else " ")
    asks = [form.format(my=my, x=x) for form in ASK_RELATION]
    if near[:1] == " " and near != " " and rng.random() < 0.3:
        asks = [f"What is {my} {x}{near}called?", f"What is the name of {my} {x}{near.rstrip()}?", f"Who is {my} {x}{near.rstrip()}?" if who else f"How is {my} {x}{near}called?"]
    if who:
        asks += [f"Who is {my} {x}?"] * 3
    acks = [*KEPT, f"{n} is a nice name for {a(x)}.", f"Please say hello to {n}.", f"I will remember that your {x} is called {n}.", f"{n} is a nice name."]
    return Fact(told, asks, rng.choice([f"Your {x} is called {n}.", f"The name of your {x} is {n}."]), n, f"You have not told me the name of your {x}.", acks, person)


CALLED = "is called|is called|is named|is named|is|has the name|bears the name|goes by|was baptized|was named|goes by the name of|listens to the name|got the name|is known as|is usually called|will be called|has always been called|is still called|is simply called".split("|")
RELATION = """This is {my} {x} {n}.|I am here with {my} {x} {n}.|{My} {x} {n} is here, too.|I live with {my} {x} {n}.|I share a house with {my} {x} {n}.|Me and {my} {x} {n} say hello.|I went out with {my} {x} {n} today.|I love {my} {x} {n}.|{My} {x} {n} likes you.|Next to me is {my} {x}, {n}.|{My} {x}'s name is {n}.|{My} {x}{place}{called} {n}.
{My} {x}'s name{near}is {n}.|I have {ax} named {n}.|I have {ax}{place}called {n}.|I have {ax}, {n}.|I have {ax}, its name is {n}.|The name of {my} {x} is {n}.|The name of {my} {x}{near}is {n}.|{n} is the name of {my} {x}.|{n} is {my} {x}.|{n} is {my} {x}{place}these days.|We call {my} {x} {n}.|I named {my} {x} {n}.|I named {my} {x}{place}{n}.|{My} {x}, {n}, says hello.
I gave {my} {x} the name {n}.|I gave {my} {x}{place}the name {n}.|I call {my} {x} {n}.|Everybody calls {my} {x} {n}.|We christened {my} {x} {n}.|We decided to call {my} {x} {n}.|{My} {x} was baptized {n} last year.|You may call {my} {x} {n}.|{n}, that is {my} {x}.|{n} is what we call {my} {x}.|Meet {my} {x} {n}.|Say hello to {my} {x}, {n}.|For {my} {x} we chose the name {n}.
{My} {x} used to have no name, now it is {n}.|When I say {n}, I mean {my} {x}.|{My} {x}: {n}.|{My} {x} = {n}.|As for {my} {x}, the name is {n}.|Do you know {my} {x} {n}?|There is also {my} {x}, {n}.|I must tell you about {my} {x} {n}.|I have known {my} {x} {n} for years.|{My} {x} {n} comes from abroad.|Yesterday {my} {x} {n} was ill.|I miss {my} {x} {n}.""".replace("\n", "|").split("|")
ASK_RELATION = """What is {my} {x} called?|What is {my} {x} called?|What is the name of {my} {x}?|What is the name of {my} {x}?|What is {my} {x}'s name?|How is {my} {x} called?|What's {my} {x}'s name?|Do you remember the name of {my} {x}?|Tell me the name of {my} {x}.|Do you know what {my} {x} is called?|What did I say {my} {x} is called?|What was the name of {my} {x} again?
name of {my} {x}?|What did I name {my} {x}?|What name did I give {my} {x}?|What do we call {my} {x}?|What was {my} {x} called?|Which name has {my} {x}?|And {my} {x}, what is the name?|What did I call {my} {x}?|Can you tell me what {my} {x} is called?|I forgot the name of {my} {x}.|Remind me of the name of {my} {x}.|How do I call {my} {x}?""".replace("\n", "|").split("|")


def two(rng: random.Random, things: Things) -> Fact:
    """Two or three names at once."""
    x = rng.choice(PERSONS + NAMED) if rng.random() < 0.7 else things.thing(rng)
    names = [person(rng) for _ in range(rng.choice([2, 2, 2, 3]))]
    v, xs, count = listed(names), plural(x), {2: "two", 3: "three"}[len(names)]
    told = rng.choice([f"I have {count} {xs}, {v}.", f"I have {count} {xs}: {v}.", f"I have {count} {xs} called {v}.", f"My {xs} are called {v}.", f"My {count} {xs} are {v}.", f"{v} are my {xs}.", f"I named my {xs} {v}.", f"The names of my {xs} are {v}."])
    asks = [f"What are my {xs} called?", f"What are the names of my {xs}?", f"How are my {xs} called?", f"Do you remember my {xs}' names?", f"Tell me the names of my {xs}.", f"Who are my {xs}?"]
    return Fact(told, asks, f"Your {xs} are called {v}.", v, f"You have not told me the names of your {xs}.", [*KEPT, f"{v} are nice names."])


SEVERAL = [line.split(" = ") for line in """
I need to buy {v}. = What do I need to buy?|What should I buy?|What is on my shopping list? = You need to buy {v}.
My shopping list: {v}. = What is on my shopping list?|What do I have to buy?|Repeat my shopping list. = On your shopping list are {v}.
I have packed {v}. = What have I packed?|What did I pack?|What is in my bag? = You have packed {v}.
In my bag there are {v}. = What is in my bag?|What do I have in my bag? = In your bag there are {v}.
I like {v}. = What do I like?|Which things do I like? = You like {v}.
I can play {v}. = What can I play?|Which things can I play? = You can play {v}.
For the trip I need {v}. = What do I need for the trip?|Which things do I need for the trip? = For the trip you need {v}.
I brought {v}. = What did I bring?|Which things did I bring? = You brought {v}.
On my desk you find {v}. = What is on my desk?|What do you find on my desk? = On your desk you find {v}.
Remember these words: {v}. = Which words should you remember?|What were the words?|Repeat the words. = The words are {v}.
I have lived in {towns}. = Where have I lived?|In which towns have I lived? = You have lived in {towns}.
We will visit {towns}. = Where will we go?|Which towns will we visit?|What will we visit? = You will visit {towns}.
I have invited {names}. = Who have I invited?|Whom did I invite? = You have invited {names}.
{names} are coming to dinner. = Who is coming to dinner?|Who comes to dinner? = {names} are coming to dinner.
I work with {names}. = Who do I work with?|With whom do I work? = You work with {names}.
""".strip().splitlines()]


def several(rng: random.Random, things: Things) -> Fact:
    """A list of two to four."""
    told, asks, said = rng.choice(SEVERAL)
    count = rng.choice([2, 2, 3, 3, 4])
    kind = next(kind for kind in ("towns", "names", "v") if f"{{{kind}}}" in told)
    draw = {"towns": town, "names": person, "v": things.thing}[kind]
    v = listed([draw(rng) for _ in range(count)])
    said = said.format(**{kind: v})
    return Fact(told.format(**{kind: v}), asks.split("|"), said, v, f"You have not told me {rng.choice(['that', 'anything about that'])}.")


def both(rng: random.Random, things: Things) -> Fact:
    """Two with a name each, of which one is asked for."""
    n, m, who = person(rng), person(rng), rng.random() < 0.6
    x, y = (things.someone(rng), things.someone(rng)) if who else (things.thing(rng), things.thing(rng))
    told = rng.choice(BOTH).format(x=x, y=y, n=n, m=m, ax=a(x), ay=a(y))
    wanted, v = rng.choice([(x, n), (y, m)])
    my = "the" if f"he {wanted}" in told else "our" if f"ur {wanted}" in told else "my"
    asks = [form.format(my=my, x=wanted) for form in ASK_RELATION] + [f"Who is {my} {wanted}?"] * 4 * who
    your = "the" if my == "the" else "your"
    return Fact(told, asks, f"{your.capitalize()} {wanted} is called {v}.", v, f"You have not told me the name of {your} {wanted}.", [*KEPT, f"{n} and {m} are nice names."])


BOTH = """My {x} is called {n} and my {y} {m}.|My {x} is {n} and my {y} is {m}.|My {x} is {n}, my {y} is {m}.|The {x} is called {n}, the {y} {m}.|The {x} is {n}, the {y} is {m}.|The name of my {x} is {n}, that of my {y} {m}.|I have {ax}, {n}, and {ay}, {m}.|I have {ax} called {n} and {ay} called {m}.|I named my {x} {n} and my {y} {m}.|{n} is my {x} and {m} is my {y}.|My {x} {n} knows my {y} {m}.
My {x} {n} and my {y} {m} say hello.|I went out with my {x} {n} and my {y} {m}.|Our {x} is called {n}, our {y} {m}.|Our {x} is {n} and our {y} is {m}.|We call our {x} {n}, but our {y} is {m}.|{n} is the {x}, {m} is the {y}.|My {x} {n} gave me my {y} {m}.|There are two of them: my {x} {n} and my {y} {m}.|My {x} is called {n}, unlike my {y}, which is {m}.|Not my {x} but my {y} is called {m}, my {x} is {n}.""".replace("\n", "|").split("|")


def alias(rng: random.Random, things: Things) -> Fact:
    """Other names of the user's, and what is written somewhere."""
    n = person(rng)
    if rng.random() < 0.35:
        x = rng.choice(["passport", "ticket", "ID card", "name tag", "mailbox", "diploma", "jersey", "cup", "desk sign", "bracelet", f"{rng.choice(ADJECTIVES)} passport", things.thing(rng), things.thing(rng)])
        text, at = rng.choice([("says", "say"), ("reads", "read"), ("shows the name", "show"), ("bears the name", "bear")])
        old = f" used to say {person(rng)}, now it {text} " if rng.random() < 0.2 else f" {text} "
        return Fact(f"My {x}{old}{n}.", [f"What does my {x} say?", f"Which name is on my {x}?", f"What is written on my {x}?", f"Which name does my {x} {at}?", f"Do you know what my {x} says?"], f"Your {x} says {n}.", n, f"You have not told me what your {x} says.", KEPT, person)
    x = rng.choice(ALIASES)
    near = things.which(rng) if rng.random() < 0.4 else " "
    told = rng.choice([f"My {x}{near}is {n}.", f"My {x}{near}is {n}.", f"{n} is my {x}.", f"My {x} is {n}, by the way.", f"I use {n} as my {x}.", f"As my {x} I use {n}.", f"My {x}: {n}", f"I chose {n} for my {x}.", f"My {x}{near}used to be {person(rng)}, now it is {n}."])
    asks = [f"What is my {x}?", f"What is my {x}?", f"What's my {x}?", f"Tell me my {x}.", f"Do you know my {x}?", f"Do you remember my {x}?", f"What was my {x} again?", f"Which {x} do I have?", f"Which {x} do I use?", f"my {x}?"]
    return Fact(told, asks, f"Your {x} is {n}.", n, f"You have not told me your {x}.", KEPT, person)


ALIASES = "nickname|stage name|call sign|middle name|last name|family name|surname|maiden name|user name|screen name|login|alias|artist name|second name|code name|chat name|account name|gamer tag|short name|family's name|childhood name|second surname|old name|new name|Latin name|confirmation name|married name|name on stage|name in the choir|name at work|name online".split("|")


PLACES_OF_LIFE = [  # told, asks, said, missing
    ("I live in {v}.|My home is in {v}.|I have lived in {v} for years.|My house is in {v}.|I moved to {v} last year.|Home for me is {v}.|{v} is where I live.|{v} is my home.|I know {v} well, I live there.|You will find my house in {v}.|My address is in {v}.|I have a flat in {v}.|My family and I live in {v}.|I settled in {v}.|We live in {v}.|We have lived in {v} since spring.|Our home is in {v}.|My neighbors in {v} are nice, I like living there.", "Where do I live?|Where do we live?|Which town do I live in?|In which city do I live?|Where is my home?|Do you know where I live?|Where did I say I live?|What town do I live in?|Where is my house?",
     "You live in {v}.", "You have not told me where you live."),
    ("I come from {v}.|I am from {v}.|My home town is {v}.|I was born in {v}.|My birthplace is {v}.|I grew up in {v}.|{v} is where I was born.|I first saw the light of day in {v}.|My life began in {v}.|I know {v} well, I was born there.|My mother had me in {v}.|You hear that I come from {v}.|The hospital where I was born is in {v}.|As a child of {v} I love the sea.|My whole family comes from {v}, and so do I.", "Where do I come from?|Where am I from?|What is my home town?|Where was I born?|Do you remember where I come from?|Which place do I come from?|Where did I grow up?",
     "You come from {v}.", "You have not told me where you come from."),
    ("I work in {v}.|My office is in {v}.|I have a job in {v}.|My desk is in {v}.|My workplace is in {v}.|I earn my money in {v}.|{v} is where I work.|Every day I take the train to my office in {v}.", "Where do I work?|In which city do I work?|Where is my office?|Do you know where I work?|Which town do I work in?", "You work in {v}.", "You have not told me where you work."),
    ("I am going to {v} tomorrow.|I will travel to {v}.|I am on my way to {v}.|My next trip goes to {v}.|I am travelling to {v}.|I will fly to {v} soon.|My ticket says {v}, I leave tomorrow.|I am off to {v}.|My bags are packed for {v}.|We are leaving for {v}.|I will spend my holiday in {v}.|I booked a trip to {v}.|My holiday will be in {v}.", "Where am I going?|Where will I travel?|What is the goal of my trip?|Where does my trip go?|Do you remember where I am going?|Where do I travel to?",
     "You are going to {v}.", "You have not told me where you are going."),
    ("I work for {v}.|My employer is {v}.|I am employed at {v}.|The company I work for is {v}.", "Who do I work for?|Which company do I work for?|Who is my employer?|What is my company called?|Where am I employed?", "You work for {v}.", "You have not told me who you work for."),
    ("I study at {v}.|My school is {v}.|I go to school at {v}.", "Where do I study?|Which school do I go to?|What is my school called?|Where do I go to school?", "You study at {v}.", "You have not told me where you study."),
]


def place(rng: random.Random, things: Things) -> Fact:
    told, asks, said, missing = rng.choice(PLACES_OF_LIFE)
    v = town(rng)
    acks = [*KEPT, f"I have never been to {v}.", f"{v} sounds nice.", f"I do not know {v}, but I will remember it.", f"I hope that you like {v}."]
    return Fact(rng.choice(told.split("|")).format(v=v), asks.split("|"), said.format(v=v), v, missing, acks, town)


def age(rng: random.Random, things: Things) -> Fact:
    n = rng.randint(5, 99)
    told = rng.choice([f"I am {n} years old.", f"I'm {n} years old.", f"My age is {n}.", f"I am {n}.", f"I turned {n} last week.", f"I have just turned {n}.", f"I will be {n + 1} next year, I am {n} now."])
    return Fact(told, ["How old am I?", "What is my age?", "Do you know how old I am?", "Tell me my age.", "Do you remember my age?", "How old did I say I am?", "my age?"], f"You are {n} years old.", str(n), "You have not told me how old you are.")


def job(rng: random.Random, things: Things) -> Fact:
    j = rng.choice(JOBS)
    told = rng.choice([f"I am {a(j)}.", f"I work as {a(j)}.", f"My job is {j}.", f"I earn my living as {a(j)}.", f"By profession I am {a(j)}.", f"I'm {a(j)}."])
    return Fact(told, ["What is my job?", "What do I do?", "What do I work as?", "What do I do for a living?", "Which job do I have?", "What is my profession?", "Do you remember my job?", "Tell me what my job is."], f"You are {a(j)}.", j, "You have not told me your job.")


def code(rng: random.Random) -> str:
    """A number, some letters, or both; no word of it is one that the evaluation uses."""
    made = drawn_code(rng)
    return code(rng) if UNSEEN_WORDS.intersection(re.split("[ -]|(?<=[a-z])(?=[0-9])", made.lower())) else made


def drawn_code(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind == 9:
        return f"{invented(rng).lower()}@{invented(rng).lower()}.{rng.choice('com org net de fr uk'.split())}" if rng.random() < 0.2 else f"{rng.randint(100, 999)}-{rng.randint(0, 9999):04d}"
    if kind == 8:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(4, 8))) if rng.random() < 0.6 else ".".join(f"{rng.randint(10, 99)}" for _ in range(rng.randint(2, 4)))
    if kind >= 6:
        return f"{invented(rng).upper()[: rng.randint(2, 6)]}{rng.choice(['', '-', ''])}{rng.randint(0, 999)}"
    if kind <= 1:
        return str(rng.randint(0, 9999)).zfill(rng.randint(1, 4))
    if kind == 2:
        return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(rng.randint(3, 6)))
    if kind == 3:
        return f"{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{rng.choice(['', '-', ' '])}{rng.randint(10, 9999)}"
    return invented(rng) if kind == 4 else invented(rng).lower()


def secret(rng: random.Random, things: Things) -> Fact:
    v = code(rng)
    kind, x = rng.random(), rng.choice(SECRETS) if rng.random() < 0.6 else things.qualified(rng, rng.choice(["code", "number", "password", "key", "PIN", "combination", "extension"]))
    x = x if kind < 0.5 else f"{x} of my {things.thing(rng)}" if kind < 0.75 else f"number of the {things.thing(rng)}"
    my = rng.choice(["The", "The", "My", "Our"]) if " of " not in x else "The"
    the, your, x_said = my.lower(), "the" if my == "The" else "your", x.replace(" my ", " your ")
    near = things.which(rng) if rng.random() < 0.35 else " "
    told = rng.choice([f"{my} {x}{near}is {v}."] * 4 + [form.format(My=my, my=the, x=x, v=v) for form in SECRET])
    asks = [form.format(my=the, x=x) for form in ASK_SECRET]
    return Fact(told, asks, f"{your.capitalize()} {x_said} is {v}.", v, f"You have not told me {your} {x_said}.", [*KEPT, f"I will remember {your} {x_said}.", f"I will remember {v}."], code)


SECRET = """{My} {x}: {v}|{v} is {my} {x}.|Remember {my} {x}: {v}.|Please remember that {my} {x} is {v}.|Note that {my} {x} is {v}.|Keep in mind that {my} {x} is {v}.|Don't forget: {my} {x} is {v}.|{My} {x} reads {v}.|{My} {x} has changed to {v}.|{My} {x} will be {v}.|They gave me {v} as {my} {x}.|Use {v} as {my} {x}.|For {my} {x} enter {v}.
{My} {x} begins with {v}.|Write down {my} {x}, {v}.|I was told that {my} {x} is {v}.|{My} new {x} is {v}.|If they ask for {my} {x}, say {v}.|{v}, that is {my} {x}.|I always forget {my} {x}, it is {v}.|Between us: {my} {x} is {v}.|It says here that {my} {x} is {v}.""".replace("\n", "|").split("|")
ASK_SECRET = """What is {my} {x}?|What is {my} {x}?|What was {my} {x}?|Tell me {my} {x}.|What's {my} {x}?|Do you remember {my} {x}?|I forgot {my} {x}. What is it?|Repeat {my} {x}, please.|{my} {x}?|Do you know {my} {x}?|Which {x} did I tell you?|Remind me of {my} {x}.|What did I say {my} {x} is?|I need {my} {x}.|Can you give me {my} {x}?|And what is {my} {x}?""".replace("\n", "|").split("|")
NUMBERED = [line.split(" = ") for line in """
has the number {v} = What number does {it} have?|What is the number of {it}?|Which number has {it}?|Do you know the number of {it}?
opens with {v} = What does {it} open with?|How does {it} open?|With what does {it} open?|What opens {it}?
ends in {v} = What does {it} end in?|In what does {it} end?|What are the last digits of {it}?
starts with {v} = What does {it} start with?|With what does {it} start?|Do you know what {it} starts with?
is marked {v} = How is {it} marked?|What is {it} marked with?|Do you remember how {it} is marked?
is labeled {v} = How is {it} labeled?|What is on the label of {it}?|Tell me how {it} is labeled.
has the code {v} = What code does {it} have?|What is the code of {it}?|Tell me the code of {it}.
has the tag {v} = Which tag does {it} have?|What is the tag of {it}?|What was the tag of {it}?
stands in row {v} = In which row does {it} stand?|Which row does {it} stand in?|Do you know in which row {it} stands?
""".strip().splitlines()]


def numbered(rng: random.Random, things: Things) -> Fact:
    """A thing that has a number, or opens with one."""
    v, x, near = code(rng), things.thing(rng), things.which(rng) if rng.random() < 0.35 else " "
    has, asks = rng.choice(NUMBERED)
    my = rng.choice(["my", "my", "the", "our"])
    it, its, has = f"{my} {x}", f"{'the' if my == 'the' else 'your'} {x}", has.format(v=v)
    return Fact(f"{my.capitalize()} {x}{near}{has}.", [form.format(it=it) for form in asks.split("|")], f"{its.capitalize()} {has}.", v, f"You have not told me that about {its}.", [*KEPT, f"I will remember {v}."], code)


MEASURES = "rent|height|weight|age limit|shoe number|budget|debt|score|speed|salary|price|record|bill|distance|fee|deposit|width|length|ticket price|water bill|savings|collar size|heart rate|blood pressure|bonus|income|handicap|mileage|tip|fine|electricity bill|monthly fee|yearly tax".split("|")
UNITS = "euros|dollars|meters|kilos|pounds|miles|points|euros a month|dollars a week|kilometers|inches|percent|liters|hours|minutes|francs|crowns|grams|degrees||||".split("|")


def measure(rng: random.Random, things: Things) -> Fact:
    """How much something is."""
    x, n = rng.choice(MEASURES), f"{rng.randint(1, 9999)} {rng.choice(UNITS)}".strip()
    of = f" of my {things.thing(rng)}" if rng.random() < 0.5 else ""
    of_said = of.replace(" my ", " your ", 1)
    my, your = ("the", "the") if of else ("my", "your")
    near = things.which(rng) if rng.random() < 0.3 else " "
    told = rng.choice([f"{my.capitalize()} {x}{of}{near}is {n}."] * 3 + [f"{n} is {my} {x}{of}.", f"{my.capitalize()} {x}{of} has risen to {n}.", f"{my.capitalize()} {x}{of} was {rng.randint(1, 9999)}, now it is {n}."])
    asks = [f"What is {my} {x}{of}?", f"How much is {my} {x}{of}?", f"What's {my} {x}{of}?", f"How high is {my} {x}{of}?", f"Do you remember {my} {x}{of}?", f"Tell me {my} {x}{of}.", f"What was {my} {x}{of} again?"]
    return Fact(told, asks, f"{your.capitalize()} {x}{of_said} is {n}.", n, f"You have not told me {your} {x}{of_said}.")


def remembered_word(rng: random.Random, things: Things) -> Fact:
    what = rng.choice(["word", "number", "letter"])
    v = {"word": rng.choice([things.noun(rng), invented(rng).lower()]), "number": str(rng.randint(0, 9999)), "letter": rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}[what]
    told = rng.choice([f"Remember the {what} {v}.", f"Please remember the {what} {v}.", f"Keep the {what} {v} in mind.", f"The {what} is {v}.", f"My {what} is {v}." if what == "number" else f"The {what} to remember is {v}.", f"Memorize this {what}: {v}", f"I give you a {what}: {v}."])
    asks = [f"Which {what} did I tell you?", f"What was the {what}?", f"What {what} should you remember?", f"Which {what} should you remember?", f"What is the {what}?", f"Tell me the {what}.", f"Do you still know the {what}?", f"What {what} did I give you?"]
    return Fact(told, asks, f"The {what} is {v}.", v, f"You have not told me a {what}.", [*KEPT, f"I will remember {v}.", f"I will remember the {what} {v}."])


def moment(rng: random.Random, things: Things) -> Fact:
    x = rng.choice(EVENTS) if rng.random() < 0.4 else things.qualified(rng, rng.choice(GATHERINGS)) if rng.random() < 0.7 else f"{rng.choice(ADJECTIVES)} {rng.choice(GATHERINGS + RIDES)}"
    v, near = time_of(rng), things.which(rng) if rng.random() < 0.25 else " "
    verb, base = rng.choice([("is", "")] * 4 + HAPPENING) if " my " not in x else ("is", "")
    told = rng.choice([f"My {x}{near}{verb} {v}.", f"The {x}{near}{verb} {v}.", f"Remember that my {x} {verb} {v}.", f"{v[0].upper()}{v[1:]} I have my {x}.", f"I have {a(x)} {v}.", f"My {x} was on {rng.choice(DAYS)}, now it {verb} {v}."])
    the = "the" if told.startswith("The") else "my"
    if base and verb in told:
        asks = [f"When does {the} {x} {base}?"] * 3 + [f"Do you remember when {the} {x} {verb}?", f"Tell me when {the} {x} {verb}.", f"When did I say {the} {x} {verb}?"]
    else:
        verb, asks = "is", [f"When is {the} {x}?"] * 3 + [f"When was {the} {x}?", f"Do you remember when {the} {x} is?", f"Tell me when {the} {x} is.", f"When do I have {the} {x}?", f"When did I say {the} {x} is?"] + [f"At what time is {the} {x}?"] * 2 * v.startswith("at")
    its = f"{the.replace('my', 'your')} {x.replace(' my ', ' your ')}"
    return Fact(told, asks, f"{its.capitalize()} {verb} {v}.", v.split(" ", 1)[1], f"You have not told me when {its} {verb}.")


GATHERINGS = "lesson training meeting party course club match show tour talk session practice fair contest trip ceremony auction festival round date workshop seminar rehearsal exam".split()
RIDES = "train bus ferry flight tram boat plane coach taxi subway shuttle".split()
HAPPENING = [("starts", "start"), ("ends", "end"), ("begins", "begin"), ("opens", "open"), ("closes", "close"), ("leaves", "leave"), ("takes place", "take place")]


def clock(rng: random.Random) -> str:
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    return rng.choice([f"{hour}:{minute:02d}"] * 4 + [f"{hour % 12 + 1}:{minute:02d} {rng.choice(['am', 'pm'])}", f"{hour % 12 + 1} {rng.choice(['am', 'pm'])}", f"half past {rng.choice('one two three four five six seven eight nine ten'.split())}"])


def date(rng: random.Random) -> str:
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    return rng.choice([f"{day} {month}"] * 2 + [f"{month} {day}", f"{day}/{rng.randint(1, 12)}", f"{day} {month} {rng.randint(1920, 2030)}", f"the {day}th of {month}" if 3 < day < 21 else f"{day} {month}"])


def time_of(rng: random.Random) -> str:
    return rng.choice([f"at {clock(rng)}"] * 4 + [f"on {date(rng)}", f"on {rng.choice(DAYS)}", f"on {rng.randint(1, 28)} {rng.choice(MONTHS)}", f"at {rng.randint(1, 12)} o'clock", f"in {rng.choice(MONTHS)}", f"on {rng.choice(DAYS)} at {rng.randint(8, 20)}", f"on {rng.choice(DAYS)} at {rng.randint(8, 20)}:{rng.randint(0, 59):02d}"])


def birthday(rng: random.Random, things: Things) -> Fact:
    v = date(rng)
    told = rng.choice([f"My birthday is on {v}.", f"I was born on {v}.", f"My birthday is {v}.", f"I have my birthday on {v}."])
    return Fact(told, ["When is my birthday?", "When was I born?", "What is my birthday?", "Do you remember my birthday?", "On which day is my birthday?", "Tell me my birthday."], f"Your birthday is on {v}.", v, "You have not told me when your birthday is.")


def owned(rng: random.Random, things: Things) -> Fact:
    """The color, the place or the number of things."""
    noun = things.thing(rng)
    kind, my = rng.randrange(3), rng.choice(["my", "my", "my", "our", "the"])
    your = "the" if my == "the" else "your"
    near = things.which(rng) if rng.random() < 0.2 else " "
    if kind == 0:
        c = rng.choice(COLORS)
        told = rng.choice([f"My {noun}{near}is {c}.", f"I have {a(c)} {noun}.", f"I bought {a(c)} {noun}.", f"I painted my {noun} {c}.", f"The color of my {noun} is {c}."])
        return Fact(told, [f"What color is my {noun}?", f"Which color does my {noun} have?", f"What is the color of my {noun}?", f"Do you know the color of my {noun}?", f"What colour is my {noun}?"], f"Your {noun} is {c}.", c, f"You have not told me the color of your {noun}.")
    if kind == 1:
        v = rng.choice(HIDING) if rng.random() < 0.4 else f"{rng.choice(BY)} {rng.choice(['the', 'the', 'my', 'a'])} {things.thing(rng)}"
        v_said = v.replace(" my ", " your ")
        told = rng.choice([f"{my.capitalize()} {noun}{near}is {v}.", f"I put {my} {noun} {v}.", f"I left {my} {noun} {v}.", f"I keep {my} {noun} {v}.", f"I hid {my} {noun} {v}.", f"You will find {my} {noun} {v}.", f"{my.capitalize()} {noun} lies {v}.", f"Look for {my} {noun} {v}.", f"{my.capitalize()} {noun} was {rng.choice(HIDING)}, now it is {v}."])
        asks = [f"Where is {my} {noun}?", f"Where is {my} {noun}?", f"Where did I put {my} {noun}?", f"Do you know where {my} {noun} is?", f"I cannot find {my} {noun}. Where is it?", f"Where can I find {my} {noun}?", f"Where did I leave {my} {noun}?", f"Where do I keep {my} {noun}?", f"Where was {my} {noun}?"]
        return Fact(told, asks, f"{your.capitalize()} {noun} is {v_said}.", v_said, f"You have not told me where {your} {noun} is.")
    n = rng.randint(2, 999)
    s = plural(noun)
    told = rng.choice([f"I have {n} {s}.", f"I own {n} {s}.", f"I bought {n} {s}.", f"There are {n} {s} in my house.", f"I have counted {n} {s}.", f"My shop has {n} {s}."])
    return Fact(told, [f"How many {s} do I have?", f"How many {s} are there?", f"What is the number of my {s}?", f"Do you remember how many {s} I have?", f"How many {s} did I say?"], f"You have {n} {s}.", str(n), f"You have not told me how many {s} you have.")


def somebody(rng: random.Random, things: Things) -> Fact:
    """Something about another person or thing."""
    n, noun = person(rng), things.thing(rng)
    kind = rng.randrange(6)
    who = f"My {things.someone(rng)} {n}" if rng.random() < 0.6 else n
    if kind == 0:
        v = town(rng)
        return Fact(f"{who} lives in {v}.", [f"Where does {n} live?", f"Which town does {n} live in?", f"Do you know where {n} lives?", f"Where is the home of {n}?"], f"{n} lives in {v}.", v, f"You have not told me where {n} lives.")
    if kind == 1:
        v = rng.choice([noun, invented(rng).lower(), f"{noun} soup"])
        return Fact(rng.choice([f"{who} likes {v}.", f"{who} loves {v}.", f"{who} is fond of {v}."]), [f"What does {n} like?", f"Do you remember what {n} likes?", f"What does {n} love?", f"Tell me what {n} likes."], f"{n} likes {v}.", v, f"You have not told me what {n} likes.")
    if kind == 2:
        j = rng.choice(JOBS)
        return Fact(rng.choice([f"{who} is {a(j)}.", f"{who} works as {a(j)}."]), [f"What is {n}'s job?", f"What does {n} do?", f"What does {n} work as?", f"Do you know the job of {n}?"], f"{n} is {a(j)}.", j, f"You have not told me what {n} does.")
    if kind == 3:
        m = person(rng)
        return Fact(rng.choice([f"The {noun} of {n} is called {m}.", f"{n}'s {noun} is called {m}.", f"{n} has {a(noun)} named {m}."]), [f"What is the {noun} of {n} called?", f"What is {n}'s {noun} called?", f"What is the name of {n}'s {noun}?"], f"The {noun} of {n} is called {m}.", m, f"You have not told me the name of {n}'s {noun}.")
    if kind == 4:
        x, m = things.someone(rng), person(rng)
        return Fact(rng.choice([f"{n}'s {x} is {m}.", f"{n}'s {x} is called {m}.", f"The {x} of {n} is {m}.", f"{m} is {n}'s {x}.", f"{n} has {a(x)}, {m}.", f"{m} is the {x} of {n}."]), [f"Who is {n}'s {x}?", f"Who is the {x} of {n}?", f"What is {n}'s {x} called?", f"Do you know who {n}'s {x} is?"], f"{n}'s {x} is {m}.", m, f"You have not told me who {n}'s {x} is.")
    thing, v = invented(rng), invented(rng)
    what = rng.choice(RANKS) if rng.random() < 0.6 else things.thing(rng)
    return Fact(rng.choice([f"The {what} of {thing} is {v}.", f"{v} is the {what} of {thing}."]), [f"What is the {what} of {thing}?", f"Who is the {what} of {thing}?", f"Do you know the {what} of {thing}?", f"Tell me the {what} of {thing}."], f"The {what} of {thing} is {v}.", v, f"I do not know the {what} of {thing}.")


RANKS = "capital|king|queen|author|owner|mayor|inventor|president|river|captain|main town|leader|bishop|count|prince|baron|sheriff|governor|chief|oldest bridge|highest hill|founder|patron saint|newspaper|football club|lake|airport|hero|ghost|dragon|wizard|librarian|guard".split("|")
LINKS = [line.split(" = ") for line in """
My {x} comes from {town}. = Where does my {x} come from?|From where is my {x}? = Your {x} comes from {town}.
My {x} was made by {name}. = Who made my {x}?|By whom was my {x} made? = Your {x} was made by {name}.
I bought my {x} from {name}. = Who did I buy my {x} from?|From whom did I buy my {x}?|Who sold me my {x}? = You bought your {x} from {name}.
I gave my {x} to {name}. = Who did I give my {x} to?|To whom did I give my {x}?|Who has my {x}? = You gave your {x} to {name}.
I met {name} at the {x}. = Who did I meet at the {x}?|Whom did I meet at the {x}? = You met {name} at the {x}.
{name} gave me the {x}. = Who gave me the {x}?|From whom is the {x}? = {name} gave you the {x}.
I want to call my {x} {name}. = What do I want to call my {x}?|How will I call my {x}? = You want to call your {x} {name}.
My {x} costs {n} dollars. = How much does my {x} cost?|What is the price of my {x}? = Your {x} costs {n} dollars.
I paid {n} dollars for the {x}. = How much did I pay for the {x}?|What did I pay for the {x}? = You paid {n} dollars for the {x}.
My {x} weighs {n} grams. = How heavy is my {x}?|How much does my {x} weigh? = Your {x} weighs {n} grams.
I lost my {x} in {town}. = Where did I lose my {x}?|In which town did I lose my {x}? = You lost your {x} in {town}.
I found {ax} in {town}. = Where did I find {ax}?|What did I find in {town}? = You found {ax} in {town}.
I am reading {name}. = What am I reading?|Which book am I reading? = You are reading {name}.
I am allergic to {x}. = What am I allergic to?|Which thing am I allergic to? = You are allergic to {x}.
I am afraid of {xs}. = What am I afraid of?|What do I fear? = You are afraid of {xs}.
I collect {xs}. = What do I collect?|Which things do I collect? = You collect {xs}.
I hate {xs}. = What do I hate?|Which things do I hate? = You hate {xs}.
I love {xs}. = What do I love?|Which things do I love? = You love {xs}.
I dreamt of {ax}. = What did I dream of?|Which thing did I dream of? = You dreamt of a {x}.
I am looking for {ax}. = What am I looking for?|Which thing am I looking for? = You are looking for {ax}.
I need {ax}. = What do I need?|Which thing do I need? = You need {ax}.
I will marry {name}. = Who will I marry?|Whom will I marry? = You will marry {name}.
I am waiting for {name}. = Who am I waiting for?|For whom am I waiting? = You are waiting for {name}.
I am writing to {name}. = Who am I writing to?|To whom am I writing? = You are writing to {name}.
I work with {name}. = Who do I work with?|With whom do I work? = You work with {name}.
I play in the band {name}. = Which band do I play in?|In which band do I play?|What is my band called? = You play in the band {name}.
The owner of the {x} is {name}. = Who is the owner of the {x}?|Who owns the {x}? = The owner of the {x} is {name}.
The {x} belongs to {name}. = Who does the {x} belong to?|Whose is the {x}? = The {x} belongs to {name}.
The {x} is called {name}. = What is the {x} called?|What is the name of the {x}? = The {x} is called {name}.
The {x} of {town} is {name}. = What is the {x} of {town}?|Who is the {x} of {town}? = The {x} of {town} is {name}.
The word for {x} in my language is {word}. = What is the word for {x} in my language?|How do I say {x} in my language? = The word for {x} in your language is {word}.
My {x} stays with {name}. = Who has my {x}?|Where does my {x} stay?|Where is my {x}? = Your {x} stays with {name}.
{name} keeps my {x}. = Who keeps my {x}?|Who has my {x}? = {name} keeps your {x}.
{name} has my {x}. = Who has my {x}?|Do you know who has my {x}? = {name} has your {x}.
{name} takes care of my {x}. = Who takes care of my {x}?|Who has my {x}? = {name} takes care of your {x}.
My {x} is in the hands of {name}. = Who has my {x}?|In whose hands is my {x}? = Your {x} is in the hands of {name}.
My {x} was stolen by {name}. = Who stole my {x}?|Who has stolen my {x}?|By whom was my {x} stolen? = Your {x} was stolen by {name}.
My {x} was built in {town}. = Where was my {x} built?|In which town was my {x} built? = Your {x} was built in {town}.
Our {x} stands in {town}. = Where does our {x} stand?|Where is our {x}?|In which town is our {x}? = Your {x} stands in {town}.
My {x} is at the house of {name}. = At whose house is my {x}?|Where is my {x}?|Who has my {x}? = Your {x} is at the house of {name}.
I have ordered {ax} from {town}. = Where does what I ordered come from?|From where have I ordered {ax}? = You have ordered {ax} from {town}.
The {x} was sent to {town}. = Where was the {x} sent?|Where did they send the {x}? = The {x} was sent to {town}.
The way to the {x} leads through {town}. = Through which town does the way to the {x} lead?|How do I get to the {x}? = The way to the {x} leads through {town}.
My doctor told me to avoid {xs}. = What did my doctor tell me to avoid?|What should I avoid? = Your doctor told you to avoid {xs}.
For lunch I had {x}. = What did I have for lunch?|What did I eat for lunch? = For lunch you had {x}.
For my birthday I got {ax}. = What did I get for my birthday?|Do you know what I got for my birthday? = For your birthday you got {ax}.
For my birthday I want {ax}. = What do I want for my birthday?|Which thing do I want for my birthday? = For your birthday you want {ax}.
My password is the name of my {x}, {name}. = What is my password?|What is my {x} called? = Your password is {name}.
The answer to the riddle is {x}. = What is the answer to the riddle?|Do you know the answer to the riddle? = The answer to the riddle is {x}.
The secret ingredient is {x}. = What is the secret ingredient?|Which ingredient is secret? = The secret ingredient is {x}.
Our team is called {name}. = What is our team called?|What is the name of our team? = Your team is called {name}.
{name} has won the {x} prize. = Who has won the {x} prize?|Who won the {x} prize? = {name} has won the {x} prize.
{name} is allergic to {xs}. = Who is allergic to {xs}? = {name} is allergic to {xs}.
{name} is afraid of {xs}. = Who is afraid of {xs}? = {name} is afraid of {xs}.
{name} knows everything about {xs}. = Who knows everything about {xs}? = {name} knows everything about {xs}.
I owe {name} {n} dollars. = How many dollars do I owe {name}?|How much do I owe {name}? = You owe {name} {n} dollars.
There are {n} steps to the {x}. = How many steps are there to the {x}?|How many steps lead to the {x}? = There are {n} steps to the {x}.
My {role} is {age} years old. = How old is my {role}?|What is the age of my {role}?|Do you know how old my {role} is? = Your {role} is {age} years old.
My {role} {name} is {age} years old. = How old is my {role}?|How old is {name}?|What is the age of {name}? = {name} is {age} years old.
{name} is {age} years old. = How old is {name}?|What is the age of {name}? = {name} is {age} years old.
My {role} lives in {town}. = Where does my {role} live?|In which town does my {role} live? = Your {role} lives in {town}.
My {role} comes from {town}. = Where does my {role} come from?|Where is my {role} from? = Your {role} comes from {town}.
My {role} is married to {name}. = Who is my {role} married to?|To whom is my {role} married? = Your {role} is married to {name}.
My {role} loves {xs}. = What does my {role} love?|Do you remember what my {role} loves? = Your {role} loves {xs}.
My {role} has {ax}. = What does my {role} have?|Which thing does my {role} have? = Your {role} has {ax}.
My {role} has {ax} called {name}. = What is the {x} of my {role} called?|What is the name of my {role}'s {x}? = The {x} of your {role} is called {name}.
My {role} works as {job}. = What does my {role} do?|What is the job of my {role}?|What does my {role} work as? = Your {role} works as {job}.
My {role} is {job}. = What is my {role}?|What does my {role} do?|What is the job of my {role}? = Your {role} is {job}.
My {role} is afraid of {xs}. = What is my {role} afraid of?|What does my {role} fear? = Your {role} is afraid of {xs}.
My {role} was born in {year}. = When was my {role} born?|In which year was my {role} born? = Your {role} was born in {year}.
{name} was born in {year}. = When was {name} born?|In which year was {name} born? = {name} was born in {year}.
I was born in {year}. = In which year was I born?|What year was I born in?|What is my year of birth? = You were born in {year}.
The {x} was built in {year}. = When was the {x} built?|In which year was the {x} built? = The {x} was built in {year}.
I get up at {time}. = When do I get up?|At what time do I get up? = You get up at {time}.
I go to bed at {time}. = When do I go to bed?|At what time do I go to bed? = You go to bed at {time}.
My alarm is set for {time}. = When is my alarm set for?|What time is my alarm set for?|When does my alarm ring? = Your alarm is set for {time}.
My {role} arrives at {time}. = When does my {role} arrive?|At what time does my {role} arrive? = Your {role} arrives at {time}.
{name} will visit me on {day}. = When will {name} visit me?|On which day will {name} visit me? = {name} will visit you on {day}.
{name} will visit me on {day}. = Who will visit me on {day}?|Who will visit me? = {name} will visit you on {day}.
On {day}s I eat {x}. = What do I eat on {day}s?|Do you know what I eat on {day}s? = On {day}s you eat {x}.
I drink {x} in the mornings. = What do I drink in the mornings?|Which drink do I have in the mornings? = You drink {x} in the mornings.
The bin is emptied on {day}s. = When is the bin emptied?|On which day is the bin emptied? = The bin is emptied on {day}s.
I speak {word}. = What do I speak?|Which language do I speak? = You speak {word}.
A {word} is a kind of {x}. = What is a {word}?|What kind of thing is a {word}? = A {word} is a kind of {x}.
""".strip().splitlines()]


HOLES = "name word n age town year time job day xs ax x".split()


def link(rng: random.Random, things: Things) -> Fact:
    """A sentence with one hole, and the question for what is in it."""
    told, asks, said = rng.choice(LINKS)
    x = things.thing(rng)
    slots = {"x": x, "ax": a(x), "xs": plural(x), "name": person(rng), "town": town(rng), "n": str(rng.randint(2, 999)), "word": invented(rng).lower(),
        "role": things.someone(rng), "age": str(rng.randint(1, 99)), "job": a(rng.choice(JOBS)), "year": str(rng.randint(1200, 2026)), "time": clock(rng), "day": rng.choice(DAYS)}
    hole = next(key for key in HOLES if f"{{{key}}}" in said and f"{{{key}}}" not in asks.split("|")[0])
    forms = [form.format(**slots) for form in asks.split("|") if f"{{{hole}}}" not in form]
    return Fact(told.format(**slots), forms, said.format(**slots), slots[hole], "You have not told me that.")
