"""What the user tells about themself, and questions about it later in the talk, also about what was never told.

Values are mostly invented, and things are any noun, so that an answer can only be found by looking back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .lists import CATEGORIES, DAYS, MONTHS
from .names import invented, person, title, town
from .text import Pairs, a, as_typed, plural

WITH_TASTE = """color food animal season sport drink fruit flower book film band city number day month game song subject tree instrument toy dish hobby place bird language
painter writer singer actor team holiday island vegetable word poem planet museum cheese car river dance letter soup cake""".split()
PERSONS = "sister brother mother father wife husband son daughter friend boss teacher neighbor cousin uncle aunt grandmother doctor partner colleague coach landlord baker student best friend".replace("best friend", "best_friend").split()
NAMED = "dog cat horse parrot hamster boat car band company street school village team house rabbit goldfish shop hotel club ship garden project robot guitar cow pony bakery farm tortoise band".split()
SECRETS = "code|password|secret word|code word|pin|magic word|secret number|room number|order number|ticket number|passphrase|door code|customer number|seat|flight|license plate|wifi password|locker number".split("|")
EVENTS = "meeting|train|bus|flight|appointment|lesson|concert|exam|interview|party|dinner|match|lecture|ferry|call with my boss|dentist appointment|doctor's appointment|wedding|show|class".split("|")
HIDING = "under the bed|behind the clock|in the blue box|in the kitchen|on the roof|in the garage|under the mat|in my left pocket|in the drawer|on the second shelf|in the cellar|behind the mirror|next to the stove|in the car|in the attic|under the stairs|in the shed|beside the lamp".split("|")
COLORS, JOBS = CATEGORIES["color"][1], CATEGORIES["job"][1] + "clerk driver singer poet miner judge guard dentist fisherman locksmith translator florist geologist watchmaker beekeeper".split()
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


TOLD_NAME = """My name is {n}.|My name is {n}.|I am {n}.|I'm {n}.|Call me {n}.|Please call me {n}.|You can call me {n}.|The name is {n}.|{n} here.|This is {n}.|It's {n}.|My friends call me {n}.
They call me {n}.|People call me {n}.|I go by {n}.|Hi, I'm {n}.|Hello, my name is {n}.|Hey, {n} here.|My name's {n}.|I am called {n}.|You are talking to {n}.|My first name is {n}.|My nickname is {n}.
{n} is my name.|Let me introduce myself: I am {n}.|Hi! My name is {n}.|Hello. I am {n}.|Good morning, I'm {n}.|Hi there, {n} speaking.|My parents named me {n}.|Hello, you can call me {n}.|i'm {n}|my name is {n}
My passport says {n}.|I sign my letters as {n}.|My family calls me {n}.|My colleagues call me {n}.|At work I am {n}.|Everybody calls me {n}.|The world knows me as {n}.|My real name is {n}.|My full name is {n}.|{n}, that's me.|{n} is who I am.|I respond to the name {n}.|I was christened {n}.|My user name is {n}.|It is {n} who is writing to you.
They named me {n}.|The name my parents chose is {n}.|At home I am called {n}.|I am known as {n}.|I am usually called {n}.|{n} is the name I use.|Write down my name: {n}.|You may call me {n}.|Just call me {n}.|I like to be called {n}.|I want you to call me {n}.|On my door it says {n}.|name: {n}|User: {n}
My name is {n}, nice to meet you.|My name is {n}, by the way.|Just so you know, I am {n}.|I was named {n}.|I use the name {n}.|Remember my name: {n}.|My name is {n}. Please remember it.""".replace("\n", "|").split("|")
NAMERS = """My parents|My father|My grandfather|My grandmother|My teacher|My friends|My aunt|People here|The neighbors|The whole village|My wife|My husband|The priest|My team|My boss|Everybody|Everyone|They|My children|My brother|My sister|The others|My classmates|Some people|All my friends|The people at work|My family|Most people|Nearly everybody
Half the town|The kids|My buddies|My pals|The old ladies|My neighbors|My students|My dad|My mom|All of us|Those who know me|Strangers|The villagers|My mother-in-law|My cousins|The whole street|The crew|My doctor|The postman|My trainer""".replace("\n", "|").split("|")
NAMING = """named me {n}|nicknamed me {n}|christened me {n}|baptized me {n}|dubbed me {n}|gave me the name {n}|always called me {n}|used to call me {n}|once named me {n}|decided to call me {n}|wanted to call me {n}|chose to name me {n}|have always called me {n}|introduced me as {n}|greet me as {n}|addressed me as {n}|call me {n}|call me {n}|say {n} to me
say {n} when they mean me|yell {n} when they want me|cry {n} when they see me|write {n} on my letters|know me as {n}|know me by the name {n}|think of me as {n}|speak of me as {n}|ask for {n} when they look for me|gave me {n} as a name|have {n} as a name for me|refer to me as {n}|use {n} for me|call out {n} when I am late|would call me {n}|registered me as {n}|remember me as {n}""".replace("\n", "|").split("|")
PAPERS = "passport|door|ticket|ID card|name tag|mailbox|driving license|diploma|jersey|desk|birth certificate|profile|contract|suitcase|library card|letter|form|invitation|cup|desk sign|bracelet|screen|email|business card|certificate|locker|chair|tag|envelope|school book|helmet".split("|")
SHOWING = ["says {n}", "shows {n}", "reads {n}", "has {n} on it", "has the name {n}", "carries the name {n}", "is made out to {n}", "belongs to {n}", "calls me {n}", "names me as {n}", "bears the name {n}", "tells you that I am {n}"]
FIRST = """{n} is what my friends call me|{n} is what everybody calls me|{n} is how I am called|{n} is the name that I use|{n} is the name I was given|{n} is my first name|{n} is how you can call me|{n} is me|{n} would like to talk to you|{n} is writing to you|{n} is my real name|{n}, nice to meet you|{n} speaking|{n} is what you may call me|{n} is the one who writes this
{n} is the name on my passport|{n} is how my family calls me|{n}, your user|{n} is here|{n} says hello|{n} is back|{n}, a friend|{n} is talking to you now|{n} from {town} here|{n} from the {noun} here|{n} wants to ask something|{n} is the person in front of you|{n} it is|{n} reporting|{n} on duty|{n} ready for work|{n} at your service|{n} from the first floor|{n} from next door here|{n} is on the line|{n} has joined|{n}, present|{n}, that is my name|{n} is what I am called|{n} is the name""".replace("\n", "|").split("|")
MIDDLE = """I react to {n}|I listen to the name {n}|I reply to {n}|I use {n} as my name|As my name I chose {n}|My call sign is {n}|The right name for me is {n}|Let us say that my name is {n}|The name given to me is {n}|When you talk to me, say {n}|You are speaking with {n}|If you need me, call for {n}|Everything here is asked by {n}|This is a message from {n}|These words come from {n}|Here is {n}|Here comes {n}
Write down that I am {n}|Write {n} if they ask for my name|Enter me as {n}|List me as {n}|Save my name as {n}|Note my name, it is {n}|From birth I have been {n}|All my life I have been called {n}|For years I have been {n}|Ever since school my name has been {n}|My name has always been {n}|It would be kind to call me {n}|I would like you to call me {n}|I'd love to be called {n}|I'd be glad if you said {n}|You might call me {n}
You can just say {n}|Feel free to call me {n}|Simply call me {n}|Address me with {n}|Talk to me as {n}|Use {n} when you talk to me|Should you ask for my name, it is {n}|If anybody asks, I am {n}|If you want to know, my name is {n}|I had better introduce myself, I am {n}|Allow me to introduce myself, {n}|May I introduce myself? I am {n}|I am the famous {n}|I am your user {n}|I am a {noun} named {n}|I am a {noun} called {n}|Yours, {n}
Best wishes from {n}|Regards, {n}|Hello from {n}|A warm hello from {n}|Love from {n}|I believe we have not met, I am {n}|We have met, I am {n}|It is {n} again|It was {n} who wrote to you|Who I am? {n}|My name? {n}|Name of the user is {n}|Username {n}|The user is {n}|I happen to be {n}|I remain {n}|I became {n} when I was born|Ask anyone, I am {n}|The letters of my name are {n}|Believe it or not, my name is {n}
Sign me up as {n}|Put {n} down as my name|Put me on the list as {n}|Book it for {n}|Count me in as {n}|Tick off {n}, that is me|Greeting you: {n}|Many greetings, {n}|Kind regards from your user {n}|A greeting from {n}|This text comes from {n}|This letter comes from {n}, your user|This question comes from {n}
One says {n} to me|Say {n} to me|You could say {n}|You can say {n} and I will listen|It would be good if you named me {n}|It would be great if you said {n} to me|How nice if you called me {n}|They shout {n} when lunch is ready|When they need me, they call {n}|Since I was born I have been {n}|Since school my name has been {n}|From my birth on my name was {n}|I have been named {n} since my first day""".replace("\n", "|").split("|")
ENDS = [".", ".", ".", ".", ".", ".", "!", ", and I need your help.", ", and I have a question.", ", and that is me.", ", so call me that.", ", for what it is worth.", ", and now to my question.", ", please remember it.", "", " today.", " by the way.", ", hello.", ", that's who I am.", ", okay?"]


def told_name(rng: random.Random, n: str, noun: str) -> str:
    """One of thousands of ways to say one's name."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TOLD_NAME).format(n=n)
    if kind < 0.5:
        text = f"{rng.choice(NAMERS)} {rng.choice(NAMING)}"
    elif kind < 0.6:
        text = f"My {rng.choice(PAPERS)} {rng.choice(SHOWING)}"
    else:
        text = rng.choice(FIRST if kind < 0.75 else MIDDLE)
    return text.format(n=n, noun=noun, town=town(rng)) + rng.choice(ENDS)


ASK_NAME = """What is my name?|What is my name?|Do you remember my name?|What's my name?|Who am I?|What am I called?|Can you tell me my name?|Tell me my name.|Say my name.|Do you know my name?|What did I say my name was?
How am I called?|Remind me of my name.|What was my name again?|What is my name again?|Do you still know my name?|Do you know who I am?|So what is my name?|What do people call me?|My name is?|Please repeat my name.|whats my name
What name did I tell you?|Have I told you my name?|Can you remember what I am called?|Did you catch my name?|What should you call me?|What is the name that I gave you?|Which name did I say?|Which name did I use?|What name did I state?|Which name have I told you?|With which name did I come to you?|What did I call myself?|How did I name myself?|What did I say I am called?|What name was it that I told you?|Do you have my name?|Give my name.|Repeat my name.|Please say my name again.|What name do you have for me?
How would you call me?|Do you remember what I told you about my name?|Could you remind me what I am called?|Could you tell me who I am?|May I hear my name?|Can I hear you say my name?|Who introduced himself to you?|I told you my name. What is it?|How did I call myself?|By what name do you know me?|Which name is mine?|What name do I have?|Whom are you talking to?|How do you address me?|Who is writing to you?|Who is talking to you?|What was I called again?|Give me my name.|Let me hear my name.|Can you say my name?|Could you repeat my name?
Use my name.|What is the name of the user?|Can you call me by my name?|Under which name do you know me?|What did I tell you my name is?|Which name did I mention?|Did I mention my name?|What do my friends call me?|How do people address me?|How was I named?|What was the name I told you?|What name have I told you?|Who did I say I am?|As what did I present myself?
Whose questions do you answer?|Tell me who I am.|Say who I am.|I forgot my own name. What is it?|By the way, who am I?|Do you remember who I am?|How did I say I am called?
Which name did you get from me?|Which name did I bring?|Which name did I hand to you?|Which name did I tell?|What name did I give you?|What name did I give?|How did I introduce me?|In what way did I introduce myself?|As whom did I introduce myself?|What was the name of me?|What was my own name?|What was it that people call me?|What is it that my friends say to me?|What is it that you should call me?|Once more: what am I called?|Tell me once more my name.|Please tell me again what I am called.|Can you tell what my name is?|Can you still say my name?|Do you still know who I am?""".replace("\n", "|").split("|")
NAME_WRAPS = """Can you tell me {c}?|Could you tell me {c}?|Tell me {c}.|Please tell me {c}.|Do you remember {c}?|Do you still know {c}?|I wonder {c}.|Say {c}.|Do you know {c}?|Can you remember {c}?|I forgot {c}.|Remind me {c}.|I want to hear {c}.|Will you tell me {c}?|Please say {c}.|Let me know {c}.|I would like to know {c}.|Have you noted {c}?|Are you sure {c}?
Show me that you know {c}.|Try to remember {c}.|Did you forget {c}?|Have you forgotten {c}?|Now tell me {c}.|Quick: {c}?|And {c}?|Please repeat {c}.|I hope you know {c}.|You surely know {c}.|Test: {c}?|Just tell me {c}.|Would you say {c}?|Might you know {c}?|I ask you {c}.|Finally, {c}?|Once again, {c}?""".replace("\n", "|").split("|")
NAME_CORES = "what my name is|who I am|what I am called|how I am called|what people call me|what you should call me|my name|the name I told you|the name that I gave to you|which name I have|who you are talking to|how I named myself|what I said my name is|what I told you to call me|my own name|what the others call me|the name of your user|what name I gave|by which name I go|how I call myself|what name is mine|how to address me".split("|")


def ask_name(rng: random.Random) -> str:
    if rng.random() < 0.55:
        return rng.choice(ASK_NAME)
    return rng.choice(NAME_WRAPS).format(c=rng.choice(NAME_CORES))


MEET = ["Hello, {n}! How can I help you?", "Nice to meet you, {n}.", "Hi, {n}!", "Hello, {n}.", "Welcome, {n}!", "Nice to meet you, {n}! What would you like to know?", "Hello {n}, it is nice to meet you.", "It is a pleasure to meet you, {n}."]


def name(rng: random.Random, noun: str) -> Fact:
    n = person(rng)
    said = rng.choice([f"Your name is {n}."] * 4 + [f"You are {n}.", f"You told me that your name is {n}."])
    missing = "You have not told me your name."
    return Fact(told_name(rng, n, noun), [ask_name(rng) for _ in range(3)], said, n, missing, [m.format(n=n) for m in MEET])


def taste(rng: random.Random, noun: str) -> Fact:
    x = rng.choice(WITH_TASTE) if rng.random() < 0.6 else noun
    v = rng.choice([invented(rng), invented(rng).lower(), rng.choice(CATEGORIES[x][1]) if x in CATEGORIES else invented(rng), title(rng, [noun]) if x in ("book", "film", "song", "poem") else invented(rng)])
    f = rng.choice(["favorite", "favorite", "favourite"])
    told = rng.choice([f"My {f} {x} is {v}.", f"My {f} {x} is {v}.", f"I like the {x} {v} best.", f"The {x} I like most is {v}.", f"{v} is my {f} {x}.", f"I love {v}, it is my {f} {x}.", f"As for {plural(x)}, I like {v} best.", f"{v} is the {x} that I like most."])
    asks = [f"What is my {f} {x}?", f"Which {x} do I like best?", f"What {x} do I like most?", f"Do you remember my {f} {x}?", f"Tell me my {f} {x}.", f"What's my {f} {x}?", f"Which {x} is my {f}?", f"What was my {f} {x}?", f"Do you know which {x} I like most?", f"my {f} {x}?"]
    acks = [*KEPT, f"{v} is a fine {x}.", f"Noted: your {f} {x} is {v}.", f"I will remember that your {f} {x} is {v}.", f"I do not know {v}, but I will remember it."]
    return Fact(told, asks, f"Your {f} {x} is {v}.", v, f"You have not told me your {f} {x}.", acks)


def relation(rng: random.Random, noun: str) -> Fact:
    who = rng.random() < 0.5
    x = rng.choice([*PERSONS, *JOBS] if who else NAMED).replace("_", " ") if rng.random() < 0.75 else noun
    n = person(rng)
    told = [f"This is my {x} {n}.", f"I am here with my {x} {n}.", f"My {x} {n} is here, too.", f"I live with my {x} {n}.", f"I share a house with my {x} {n}.", f"Me and my {x} {n} say hello.", f"I went out with my {x} {n} today.", f"I love my {x} {n}.", f"My {x} {n} likes you.", f"Next to me is my {x}, {n}.",
            f"My {x}'s name is {n}.", f"My {x} is called {n}.", f"My {x} is named {n}.", f"I have {a(x)} named {n}.", f"I have {a(x)} called {n}.", f"The name of my {x} is {n}.", f"{n} is the name of my {x}.", f"{n} is my {x}.", f"We call my {x} {n}.", f"I named my {x} {n}.", f"My {x}, {n}, says hello."]
    asks = [f"What is my {x} called?", f"What is the name of my {x}?", f"What is my {x}'s name?", f"How is my {x} called?", f"What's my {x}'s name?", f"Do you remember the name of my {x}?", f"Tell me the name of my {x}.", f"Do you know what my {x} is called?", f"What did I say my {x} is called?", f"What was the name of my {x} again?",
            f"name of my {x}?", f"What did I name my {x}?"]
    if who and x != noun:
        asks.append(f"Who is my {x}?")
    acks = [*KEPT, f"{n} is a nice name for {a(x)}.", f"Please say hello to {n}.", f"I will remember that your {x} is called {n}.", f"{n} is a nice name."]
    return Fact(rng.choice(told), asks, rng.choice([f"Your {x} is called {n}.", f"The name of your {x} is {n}."]), n, f"You have not told me the name of your {x}.", acks)


def two(rng: random.Random, noun: str) -> Fact:
    """Two names at once."""
    x = rng.choice(PERSONS + NAMED).replace("_", " ") if rng.random() < 0.7 else noun
    n, m, xs = person(rng), person(rng), plural(x)
    told = rng.choice([f"I have two {xs}, {n} and {m}.", f"My {xs} are called {n} and {m}.", f"My two {xs} are {n} and {m}.", f"{n} and {m} are my {xs}.", f"I named my {xs} {n} and {m}.", f"The names of my {xs} are {n} and {m}."])
    asks = [f"What are my {xs} called?", f"What are the names of my {xs}?", f"How are my {xs} called?", f"Do you remember my {xs}' names?", f"Tell me the names of my {xs}.", f"Who are my {xs}?"]
    return Fact(told, asks, f"Your {xs} are called {n} and {m}.", f"{n} and {m}", f"You have not told me the names of your {xs}.", [*KEPT, f"{n} and {m} are nice names."])


PLACES_OF_LIFE = [  # told, asks, said, missing
    ("I live in {v}.|My home is in {v}.|I have lived in {v} for years.|My house is in {v}.|I moved to {v} last year.|Home for me is {v}.", "Where do I live?|Which town do I live in?|In which city do I live?|Where is my home?|Do you know where I live?|Where did I say I live?|What town do I live in?|Where is my house?",
     "You live in {v}.", "You have not told me where you live."),
    ("I come from {v}.|I am from {v}.|My home town is {v}.|I was born in {v}.|My birthplace is {v}.|I grew up in {v}.", "Where do I come from?|Where am I from?|What is my home town?|Where was I born?|Do you remember where I come from?|Which place do I come from?|Where did I grow up?",
     "You come from {v}.", "You have not told me where you come from."),
    ("I work in {v}.|My office is in {v}.|I have a job in {v}.", "Where do I work?|In which city do I work?|Where is my office?|Do you know where I work?|Which town do I work in?", "You work in {v}.", "You have not told me where you work."),
    ("I am going to {v} tomorrow.|I will travel to {v}.|I am on my way to {v}.|My next trip goes to {v}.|I am travelling to {v}.|My holiday will be in {v}.", "Where am I going?|Where will I travel?|What is the goal of my trip?|Where does my trip go?|Do you remember where I am going?|Where do I travel to?",
     "You are going to {v}.", "You have not told me where you are going."),
    ("I work for {v}.|My employer is {v}.|I am employed at {v}.|The company I work for is {v}.", "Who do I work for?|Which company do I work for?|Who is my employer?|What is my company called?|Where am I employed?", "You work for {v}.", "You have not told me who you work for."),
    ("I study at {v}.|My school is {v}.|I go to school at {v}.", "Where do I study?|Which school do I go to?|What is my school called?|Where do I go to school?", "You study at {v}.", "You have not told me where you study."),
]


def place(rng: random.Random, noun: str) -> Fact:
    told, asks, said, missing = rng.choice(PLACES_OF_LIFE)
    v = town(rng)
    acks = [*KEPT, f"I have never been to {v}.", f"{v} sounds nice.", f"I do not know {v}, but I will remember it.", f"I hope that you like {v}."]
    return Fact(rng.choice(told.split("|")).format(v=v), asks.split("|"), said.format(v=v), v, missing, acks)


def age(rng: random.Random, noun: str) -> Fact:
    n = rng.randint(5, 99)
    told = rng.choice([f"I am {n} years old.", f"I'm {n} years old.", f"My age is {n}.", f"I am {n}.", f"I turned {n} last week.", f"I have just turned {n}.", f"I will be {n + 1} next year, I am {n} now."])
    return Fact(told, ["How old am I?", "What is my age?", "Do you know how old I am?", "Tell me my age.", "Do you remember my age?", "How old did I say I am?", "my age?"], f"You are {n} years old.", str(n), "You have not told me how old you are.")


def job(rng: random.Random, noun: str) -> Fact:
    j = rng.choice(JOBS)
    told = rng.choice([f"I am {a(j)}.", f"I work as {a(j)}.", f"My job is {j}.", f"I earn my living as {a(j)}.", f"By profession I am {a(j)}.", f"I'm {a(j)}."])
    return Fact(told, ["What is my job?", "What do I do?", "What do I work as?", "What do I do for a living?", "Which job do I have?", "What is my profession?", "Do you remember my job?", "Tell me what my job is."], f"You are {a(j)}.", j, "You have not told me your job.")


def code(rng: random.Random) -> str:
    kind = rng.randrange(8)
    if kind >= 6:
        return f"{invented(rng).upper()[: rng.randint(2, 6)]}{rng.choice(['', '-', ''])}{rng.randint(0, 999)}"
    if kind <= 1:
        return str(rng.randint(0, 9999)).zfill(rng.randint(1, 4))
    if kind == 2:
        return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(rng.randint(3, 6)))
    if kind == 3:
        return f"{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{rng.choice(['', '-', ' '])}{rng.randint(10, 9999)}"
    return invented(rng) if kind == 4 else invented(rng).lower()


def secret(rng: random.Random, noun: str) -> Fact:
    v = code(rng)
    kind, x = rng.random(), rng.choice(SECRETS) if rng.random() < 0.8 else f"{noun} {rng.choice(['code', 'number', 'password', 'key'])}"
    x = x if kind < 0.45 else f"{x} of my {noun}" if kind < 0.75 else f"number of the {noun}"
    my = rng.choice(["The", "The", "My"]) if " of " not in x else "The"
    your = "the" if my == "The" else "your"
    x_said = x.replace("my", "your")
    told = rng.choice([f"{my} {x} is {v}.", f"{my} {x} is {v}.", f"{my} {x}: {v}", f"{v} is {my.lower()} {x}.", f"Remember {my.lower()} {x}: {v}.", f"Please remember that {my.lower()} {x} is {v}.", f"Note that {my.lower()} {x} is {v}.", f"Keep in mind that {my.lower()} {x} is {v}.", f"Don't forget: {my.lower()} {x} is {v}."])
    the = my.lower()
    asks = [f"What is {the} {x}?", f"What was {the} {x}?", f"Tell me {the} {x}.", f"What's {the} {x}?", f"Do you remember {the} {x}?", f"I forgot {the} {x}. What is it?", f"Repeat {the} {x}, please.", f"{the} {x}?", f"Do you know {the} {x}?", f"Which {x} did I tell you?", f"Remind me of {the} {x}."]
    return Fact(told, asks, f"{your.capitalize()} {x_said} is {v}.", v, f"You have not told me {your} {x_said}.", [*KEPT, f"I will remember {your} {x_said}.", f"I will remember {v}."])


def remembered_word(rng: random.Random, noun: str) -> Fact:
    what = rng.choice(["word", "number", "letter"])
    v = {"word": rng.choice([noun, invented(rng).lower()]), "number": str(rng.randint(0, 9999)), "letter": rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}[what]
    told = rng.choice([f"Remember the {what} {v}.", f"Please remember the {what} {v}.", f"Keep the {what} {v} in mind.", f"The {what} is {v}.", f"My {what} is {v}." if what == "number" else f"The {what} to remember is {v}.", f"Memorize this {what}: {v}", f"I give you a {what}: {v}."])
    asks = [f"Which {what} did I tell you?", f"What was the {what}?", f"What {what} should you remember?", f"Which {what} should you remember?", f"What is the {what}?", f"Tell me the {what}.", f"Do you still know the {what}?", f"What {what} did I give you?"]
    return Fact(told, asks, f"The {what} is {v}.", v, f"You have not told me a {what}.", [*KEPT, f"I will remember {v}.", f"I will remember the {what} {v}."])


def moment(rng: random.Random, noun: str) -> Fact:
    x = rng.choice(EVENTS)
    v = rng.choice([f"at {rng.randint(0, 23)}:{rng.randint(0, 59):02d}", f"on {rng.choice(DAYS)}", f"on {rng.randint(1, 28)} {rng.choice(MONTHS)}", f"at {rng.randint(1, 12)} o'clock", f"in {rng.choice(MONTHS)}", f"on {rng.choice(DAYS)} at {rng.randint(8, 20)}"])
    told = rng.choice([f"My {x} is {v}.", f"I have a {x} {v}." if x[0] not in "aei" else f"I have an {x} {v}.", f"The {x} is {v}.", f"Remember that my {x} is {v}.", f"The {x} starts {v}.", f"{v[0].upper()}{v[1:]} I have my {x}."])
    the = "the" if told.startswith("The") else "my"
    asks = [f"When is {the} {x}?", f"When was {the} {x}?", f"At what time is {the} {x}?" if v.startswith("at") else f"When is {the} {x}?", f"Do you remember when {the} {x} is?", f"Tell me when {the} {x} is.", f"When do I have {the} {x}?", f"When did I say {the} {x} is?"]
    return Fact(told, asks, f"{the.replace('my', 'your').capitalize()} {x.replace('my', 'your')} is {v}.", v.split(" ", 1)[1], f"You have not told me when {the.replace('my', 'your')} {x.replace('my', 'your')} is.")


def birthday(rng: random.Random, noun: str) -> Fact:
    v = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    told = rng.choice([f"My birthday is on {v}.", f"I was born on {v}.", f"My birthday is {v}.", f"I have my birthday on {v}."])
    return Fact(told, ["When is my birthday?", "When was I born?", "What is my birthday?", "Do you remember my birthday?", "On which day is my birthday?", "Tell me my birthday."], f"Your birthday is on {v}.", v, "You have not told me when your birthday is.")


def owned(rng: random.Random, noun: str) -> Fact:
    kind = rng.randrange(3)
    if kind == 0:
        c = rng.choice(COLORS)
        told = rng.choice([f"My {noun} is {c}.", f"I have {a(c)} {noun}.", f"I bought {a(c)} {noun}.", f"I painted my {noun} {c}.", f"The color of my {noun} is {c}."])
        return Fact(told, [f"What color is my {noun}?", f"Which color does my {noun} have?", f"What is the color of my {noun}?", f"Do you know the color of my {noun}?", f"What colour is my {noun}?"], f"Your {noun} is {c}.", c, f"You have not told me the color of your {noun}.")
    if kind == 1:
        v = rng.choice(HIDING)
        told = rng.choice([f"My {noun} is {v}.", f"I put my {noun} {v}.", f"I left my {noun} {v}.", f"The {noun} is {v}.", f"I hid my {noun} {v}.", f"You will find my {noun} {v}."])
        asks = [f"Where is my {noun}?", f"Where did I put my {noun}?", f"Where is the {noun}?", f"Do you know where my {noun} is?", f"I cannot find my {noun}. Where is it?", f"Where can I find my {noun}?", f"Where did I leave my {noun}?"]
        return Fact(told, asks, f"Your {noun} is {v.replace('my', 'your')}.", v.replace("my", "your"), f"You have not told me where your {noun} is.")
    n = rng.randint(2, 999)
    s = noun if noun.endswith("s") else f"{noun}s"
    told = rng.choice([f"I have {n} {s}.", f"I own {n} {s}.", f"I bought {n} {s}.", f"There are {n} {s} in my house.", f"I have counted {n} {s}.", f"My shop has {n} {s}."])
    return Fact(told, [f"How many {s} do I have?", f"How many {s} are there?", f"What is the number of my {s}?", f"Do you remember how many {s} I have?", f"How many {s} did I say?"], f"You have {n} {s}.", str(n), f"You have not told me how many {s} you have.")


def somebody(rng: random.Random, noun: str) -> Fact:
    """Something about another person or thing."""
    n, x = person(rng), rng.choice(["friend ", "cousin ", "neighbor ", "colleague ", ""])
    kind = rng.randrange(5)
    who = f"My {x}{n}" if x else n
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
    thing, v = invented(rng), invented(rng)
    what = rng.choice(["capital", "king", "queen", "author", "owner", "mayor", "inventor", "president", "river", "captain", "main town", "leader"])
    return Fact(rng.choice([f"The {what} of {thing} is {v}.", f"{v} is the {what} of {thing}."]), [f"What is the {what} of {thing}?", f"Who is the {what} of {thing}?", f"Do you know the {what} of {thing}?", f"Tell me the {what} of {thing}."], f"The {what} of {thing} is {v}.", v, f"I do not know the {what} of {thing}.")


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
I found a {x} in {town}. = Where did I find a {x}?|What did I find in {town}? = You found a {x} in {town}.
I am reading {name}. = What am I reading?|Which book am I reading? = You are reading {name}.
I am allergic to {x}. = What am I allergic to?|Which thing am I allergic to? = You are allergic to {x}.
I am afraid of {xs}. = What am I afraid of?|What do I fear? = You are afraid of {xs}.
I collect {xs}. = What do I collect?|Which things do I collect? = You collect {xs}.
I hate {xs}. = What do I hate?|Which things do I hate? = You hate {xs}.
I love {xs}. = What do I love?|Which things do I love? = You love {xs}.
I dreamt of a {x}. = What did I dream of?|Which thing did I dream of? = You dreamt of a {x}.
I am looking for a {x}. = What am I looking for?|Which thing am I looking for? = You are looking for a {x}.
I need a {x}. = What do I need?|Which thing do I need? = You need a {x}.
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
A {word} is a kind of {x}. = What is a {word}?|What kind of thing is a {word}? = A {word} is a kind of {x}.
""".strip().splitlines()]


def link(rng: random.Random, noun: str) -> Fact:
    """A sentence with one hole, and the question for what is in it."""
    told, asks, said = rng.choice(LINKS)
    slots = {"x": noun, "xs": plural(noun), "name": person(rng), "town": town(rng), "n": str(rng.randint(2, 999)), "word": invented(rng).lower()}
    hole = next(key for key in ("name", "word", "n", "town", "xs", "x") if f"{{{key}}}" in said and f"{{{key}}}" not in asks.split("|")[0])
    forms = [form.format(**slots) for form in asks.split("|") if f"{{{hole}}}" not in form]
    return Fact(told.format(**slots), forms, said.format(**slots), slots[hole], "You have not told me that.")


KINDS: list[tuple[Callable[[random.Random, str], Fact], float]] = [
    (name, 7), (taste, 4), (relation, 5), (two, 0.8), (place, 3), (age, 1), (job, 1), (secret, 3), (remembered_word, 1.5), (moment, 1.5), (birthday, 0.5), (owned, 2.5), (somebody, 3), (link, 4)]


def fact(rng: random.Random, nouns: list[str]) -> Fact:
    made = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
    return made(rng, rng.choice(nouns))


def facts(rng: random.Random, nouns: list[str], count: int) -> list[Fact]:
    """Facts of which no two answer the same question."""
    out: list[Fact] = []
    while len(out) < count:
        new = fact(rng, nouns)
        if all(new.missing != old.missing for old in out):
            out.append(new)
    return out


LEADS = """By the way,|Before anything else:|First of all,|To start with,|Just for your information:|One thing first:|Listen,|You know,|Let me tell you something:|Here is something about me:|Guess what,|I must tell you:|For later:|It may matter that|I wanted to say that|Note:|So,|Well,|Good evening.|Hello.|Good day.|Nice to meet you.|Thanks.
Today I will tell you that|Take note:|Important:|As you may know,|I should mention that|Let me say that|Good morning.|Hi.|One more thing:|FYI:|Good to see you.""".replace("\n", "|").split("|")
TAILS = """ I need some help.| Can you help me?| What do you think?| That is all.| Please keep it in mind.| I have a question.| Let us begin.| Remember it.| Nice to meet you.| I will ask you later.| Don't forget it.| Okay?| How are you?""".split("|")


def framed(rng: random.Random, told: str) -> str:
    """A fact with something said before or after it, as people do."""
    kind = rng.random()
    if kind < 0.16:
        lead = rng.choice(LEADS)
        small = told.startswith(("My ", "The ", "You ", "They ", "People ", "Everybody ", "Call ", "Please ")) and lead[-1] != "."
        return f"{lead} {told[0].lower()}{told[1:]}" if small else f"{lead} {told}"
    if kind < 0.26 and told[-1] in ".!?":
        return told + rng.choice(TAILS)
    return told


ABOUT_ME = ["What do you know about me?", "What did I tell you?", "What have I told you about myself?", "What did I tell you about me?", "Tell me what you know about me.", "What do you remember about me?", "Summarize what I told you.", "What did you learn about me?"]


def verbatim(rng: random.Random, text: str) -> str:
    """What a user tells, with little of the usual carelessness: the values must stay as they are."""
    if rng.random() < 0.12:
        text = text.rstrip(".")
    if rng.random() < 0.10 and text.startswith(("My ", "The ", "Call ", "Please ")):
        text = text[0].lower() + text[1:]
    return text


def ask(rng: random.Random, about: Fact) -> str:
    """A question with names and numbers as they were told; forms without any may be typed carelessly."""
    form = rng.choice(about.asks)
    plain = form[:-1].replace("I ", "i ").islower() or form[1:].replace("I ", "i ").islower()
    return as_typed(rng, form) if plain else verbatim(rng, form)


def answer(rng: random.Random, about: Fact) -> str:
    return about.said if rng.random() < 0.93 else f"{about.short[0].upper()}{about.short[1:]}." if about.short[0].islower() and " " in about.short else f"{about.short}."


def joined(rng: random.Random, told: list[Fact]) -> str:
    """Several facts in one message, as sentences or as one."""
    texts = [f.told if f.told[-1:] in ".!?" else f"{f.told}." for f in told]
    if rng.random() < 0.5:
        return " ".join(texts)
    clauses = [text.rstrip(".") for text in texts]
    small = [c[0].lower() + c[1:] if c.split()[0] in STARTS else c for c in clauses[1:]]
    link = rng.choice([" and ", ", and ", ", "])
    return clauses[0] + "".join(link + c.removeprefix("I ") if clauses[0].startswith("I ") and rng.random() < 0.3 else link + c for c in small) + "."


STARTS = {"My", "The", "They", "People", "Everybody", "Call", "Please", "You", "Remember", "Note", "Home", "Just"}


def tell(rng: random.Random, told: list[Fact]) -> Pairs:
    """The facts over one or several turns."""
    if len(told) > 1 and rng.random() < 0.4:
        said = rng.choice([rng.choice(told[-1].acks), rng.choice(KEPT), rng.choice(told[0].acks)])
        return [(verbatim(rng, joined(rng, told)), said)]
    return [(verbatim(rng, framed(rng, f.told)), rng.choice(f.acks)) for f in told]


def correct(rng: random.Random) -> Pairs:
    """A name that is corrected later: the last one counts."""
    first, second = name(rng, "guest"), person(rng)
    change = rng.choice(["Actually, my name is {n}.", "Sorry, I meant {n}.", "No, it is {n}.", "Call me {n} instead.", "I have changed my name to {n}.", "Wrong, I am {n}.", "Correction: my name is {n}.", "Please call me {n} from now on."]).format(n=second)
    ack = rng.choice(["All right, {n}.", "Thank you, {n}.", "I will call you {n}.", "Sorry, {n}! I will remember that."]).format(n=second)
    return [(verbatim(rng, first.told), rng.choice(first.acks)), (change, ack), (as_typed(rng, ask_name(rng)), f"Your name is {second}.")]


def at_once(rng: random.Random, nouns: list[str]) -> Pairs:
    """A fact and the question about it in one message, or a question about nothing that was told."""
    if rng.random() < 0.02:
        return [(as_typed(rng, rng.choice(ABOUT_ME)), "You have not told me anything yet.")]
    if rng.random() < 0.35:
        never = fact(rng, nouns)
        return [(ask(rng, never), never.missing)]
    told = facts(rng, nouns, rng.choice([1, 1, 2, 3]))
    about = rng.choice(told)
    return [(f"{joined(rng, told)} {rng.choice(about.asks)}", answer(rng, about))]


def remembered(rng: random.Random, nouns: list[str], exchange: Callable[[random.Random], Pairs]) -> Pairs:
    """Facts, other things, and questions about the facts."""
    if rng.random() < 0.05:
        return correct(rng)
    known = facts(rng, nouns, rng.choice([1, 1, 1, 2, 2, 3, 4, 6]))
    told = known[: max(1, len(known) - (rng.random() < 0.3 and len(known) > 1))]
    pairs = tell(rng, told)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        pairs += exchange(rng)
    for about in rng.sample(known, min(len(known), rng.choice([1, 1, 2, 3]))):
        pairs.append((ask(rng, about), answer(rng, about) if about in told else about.missing))
    if rng.random() < 0.06:
        pairs.append((as_typed(rng, rng.choice(ABOUT_ME)), " ".join(f.said for f in told)))
    return pairs


REPEATS = [
    ("Say {t}.", "{t}"), ("Say: {t}", "{t}"), ("Repeat after me: {t}", "{t}"), ("Repeat: {t}", "{t}"), ("Please say {t}.", "{t}"), ("Write the following: {t}", "{t}"), ("Copy this: {t}", "{t}"), ("Type {t}.", "{t}"), ('Write "{t}".', "{t}"),
    ("Say hello to {t}.", "Hello, {t}!"), ("Greet {t}.", "Hello, {t}!"), ("Say goodbye to {t}.", "Goodbye, {t}!"), ("Wish {t} a happy birthday.", "Happy birthday, {t}!"), ("Thank {t} for me.", "Thank you, {t}!"), ("Welcome {t}.", "Welcome, {t}!"),
    ("Wish {t} good luck.", "Good luck, {t}!"), ("Say good night to {t}.", "Good night, {t}!"), ("Congratulate {t}.", "Congratulations, {t}!"), ("Say sorry to {t}.", "I am sorry, {t}."),
]


def repeat(rng: random.Random, nouns: list[str]) -> Pairs:
    """Says what it is told to say, letter by letter."""
    form, said = rng.choice(REPEATS)
    if said != "{t}":
        text = person(rng)
    else:
        text = rng.choice([person(rng), " ".join(rng.sample(nouns, rng.randint(1, 6))), code(rng), " ".join(invented(rng) for _ in range(rng.randint(1, 4))), title(rng, nouns)])
    return [(form.replace("{t}", text), said.replace("{t}", text))]
