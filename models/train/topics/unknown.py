"""Questions that the model cannot answer, and how it says so.

Most are put together from parts (who did what, which property of which thing), so that not knowing is the rule
and knowing the exception.
"""

from __future__ import annotations

import random

from .lists import CAPITALS, PLACES
from .names import LAST, first_name, full_name, invented, title, town
from .text import Pairs, as_typed, plural, typed

FIXED = """Who wrote Hamlet?|Who painted the Mona Lisa?|Write a Python program.|Write code that sorts a list.|Summarize the news.|Who is the best football player?|Should I buy shares?|What is the cure for a cold?
I have a headache. What should I do?|What is quantum mechanics?|Explain general relativity.|What is the theory of everything?|What is dark matter?|What is the speed of light?|How old is the universe?|What is the derivative of x squared?
Solve this equation for x.|What is the integral of x?|What is pi?|Who is the richest person in the world?|What is the tallest building in the world?|What is the longest river in the world?|Recommend a movie.|What film should I watch?
What should I eat today?|What should I wear?|Who will win the game tomorrow?|What are the lottery numbers?|Set an alarm for seven.|Play some music.|Turn on the light.|Open the file.|Delete my files.|What is my IP address?|What is in my pocket?
What am I thinking?|What does this picture show?|Is there life on Mars?|Who was the first man on the moon?|Who is god?|Which party should I vote for?|Who is right in this war?|How do I become rich?|What is the best programming language?
Explain the French Revolution.|How does a nuclear reactor work?|How do vaccines work?|What is blockchain?|What is Bitcoin?|How many stars are there?|How many grains of sand are there?|Why is the sky blue?|What did I eat yesterday?|What did I dream last night?
Who called me this morning?|Where are my keys?|Is my flight on time?|How much money do I have?|Did I lock the door?|What is my blood type?|What was my grade in school?|When will I die?|Will I be happy?|Who loves me?""".replace("\n", "|").split("|")
TOPICS = """photosynthesis|string theory|inflation|the stock market|machine learning|neural networks|the Roman Empire|the Cold War|plate tectonics|evolution|gene editing|climate change|thermodynamics|the big bang|black holes|calculus|trigonometry|linear algebra
jazz|cubism|opera|baroque music|impressionism|feudalism|capitalism|communism|democracy in Athens|the Renaissance|the Industrial Revolution|the Silk Road|Buddhism|stoicism|existentialism|psychoanalysis|cryptography|compilers|operating systems|Kubernetes
Docker|Linux|TCP|HTTP|databases|the periodic table|organic chemistry|antibiotics|the immune system|diabetes|the human genome|nutrition|yoga|chess openings|poker|bridge|sourdough|wine|coffee roasting|taxes|mortgages|insurance|patents|copyright|contracts
the French kitchen|the Olympic Games|Formula One|the offside rule|quantum computers|superconductors|lasers|radar|jet engines|tidal power|solar cells|batteries of the future|fusion|asteroids|exoplanets|dinosaurs|mammoths|Neanderthals|the pyramids|the Aztecs|the Vikings|the Ming dynasty""".replace("\n", "|").split("|")
DID = """invented discovered painted wrote built founded designed directed composed won lost stole found named owned planned sold bought broke burned filmed sang published translated drew carved opened closed crossed
climbed mapped conquered ruled freed attacked defended visited left hosted banned patented tested produced edited sponsored hid repaired""".split()
DO = "invent|discover|paint|write|build|found|design|direct|compose|win|lose|steal|name|own|sell|buy|burn|sing|publish|draw|carve|open|close|cross|climb|conquer|visit|leave|marry|meet|arrest|elect|divorce|bury|hide|move to|retire from|fly to|fight".split("|")
BE = "born|built|founded|written|painted|invented|discovered|opened|destroyed|elected|crowned|released|published|signed|launched|named|killed|buried|married|arrested|sold|finished|started|abolished|divided".split("|")
PROPERTY = """height|population|weight|area|boiling point|melting point|chemical formula|anthem|currency|flag|president|mayor|price|birthday|real name|motto|plot|official language|area code|zip code|atomic number|author|length|depth|national animal|top speed|phone number
address|history|religion|king|queen|prime minister|oldest building|largest city|highest mountain|longest river|main export|climate|age|salary|net worth|wife|husband|favorite food|record|website|email address|middle name|maiden name|birthplace|time zone|distance from the earth
radius|volume|density|calorie count|value|meaning in Latin|origin|etymology|inventor|patron saint|national dish|airport code|stock price|founder|chief executive|capacity|code name|secret|password|temperature|elevation|coordinates""".replace("\n", "|").split("|")
ADJECTIVE = "tall heavy old deep long far fast big expensive rich hot cold high wide strong popular rare dangerous famous large loud bright thick tasty poisonous".split()
VERBS = "sleep fly swim bark sing migrate glow float sink burn freeze hunt dance breathe hibernate melt rust explode vibrate evaporate multiply hide jump cry laugh dream".split()
TASKS = """repair {anoun}|build {anoun}|cook {noun}|clean {anoun}|train {anoun}|paint {anoun}|sell {anoun}|fix my {noun}|get to {town}|learn {tongue}|install {lang}|grow {nouns}|lose weight|sleep better|write a novel|play {noun}|draw {anoun}|remove {anoun} from my {noun2}|pass my exam
start a business|file my taxes|change a tire|knit a sweater|bake a {noun} pie|open a bank account|find a job|get a visa for {country}|reset my password|get rid of {nouns}""".replace("\n", "|").split("|")
LANGS = "Python Java C JavaScript Rust Go Ruby SQL Haskell Perl Swift".split()
TONGUES = "French German Spanish Italian Latin Chinese Japanese Russian Dutch Polish Greek Arabic Swahili Turkish Finnish".split()
COMPANIES = "Apple Google Tesla Microsoft Amazon Toyota Siemens Sony Nokia Airbus Boeing Samsung Intel Pfizer".split()
LANDS = """Mongolia Albania Nepal Ghana Bolivia Jamaica Malta Zambia Estonia Latvia Lithuania Croatia Serbia Slovenia Slovakia Bulgaria Morocco Tunisia Algeria Libya Nigeria Senegal Mali Chad Sudan Ethiopia Somalia Uganda Rwanda Tanzania Malawi
Botswana Namibia Angola Madagascar Iran Iraq Syria Jordan Lebanon Israel Yemen Oman Qatar Kuwait Pakistan Bhutan Laos Cambodia Malaysia Indonesia Singapore Brunei Fiji Samoa Tonga Panama Honduras Guatemala Belize Nicaragua Haiti Barbados Colombia Venezuela
Guyana Suriname Ecuador Paraguay Uruguay Armenia Georgia Kazakhstan Cyprus Monaco Andorra Luxembourg""".split()

FORMS = """Who {did} {thing}?|Who {did} {thing}?|Who {did} the {noun}?|Who {did} {name}?|Which person {did} {thing}?|What did {person} {do}?|What did {person} {do} in {year}?|When did {person} {do} {thing}?|When did {person} {do} the {noun}?|Where did {person} {do} {thing}?
Why did {person} {do} {thing}?|How did {person} {do} {thing}?|Did {person} {do} {thing}?|When was {thing} {be}?|When was {person} {be}?|Where was {thing} {be}?|Where was {person} {be}?|In which year was {thing} {be}?|In what year was {person} {be}?|Why was {thing} {be}?|By whom was {thing} {be}?
What is the {property} of {thing}?|What is the {property} of {thing}?|What is the {property} of {person}?|What is the {property} of {company}?|What is {person}'s {property}?|What's the {property} of {land}?|Tell me the {property} of {thing}.|Do you know the {property} of {thing}?|Which {property} does {thing} have?
What was the {property} of {thing} in {year}?|Give me the {property} of {person}.|{thing} {property}?|What is the capital of {land}?|What is the capital of {name}?|Which city is the capital of {land}?|Where is {land}?|Where is {town}?|Which country is {town} in?|How many people live in {place}?
How far is it from {place} to {town}?|What is the weather in {place}?|How do I get to {place}?|What is the best hotel in {place}?|Tell me about the history of {place}.|What language is spoken in {land}?|Who rules {land}?|Is {place} in {land}?|What can I see in {place}?|Tell me about {land}.
How {adjective} is {thing}?|How {adjective} is {person}?|How {adjective} is the {noun} of {place}?|How many {nouns} are there in {place}?|How many {nouns} does {person} have?|How many {nouns} were {be} in {year}?|How much does {anoun} cost?|How much is {anoun} in {place}?|How long does it take to {do} {anoun}?
Who is {person}?|Who was {person}?|Do you know {person}?|Tell me about {person}.|What do you know about {person}?|How old is {person}?|Where does {person} live?|Is {person} married?|What is {person} famous for?|Why is {person} famous?|What did {person} say about {thing}?|Have you heard of {person}?
What happened in {year}?|Who won the world cup in {year}?|Who was king in {year}?|Who won the election in {year}?|What was invented in {year}?|What happened on {day} {month} {year}?|Who won the {noun} prize in {year}?|What will happen in {future}?|Who will be president in {future}?
What is {title} about?|Who wrote {title}?|Who plays in {title}?|Summarize {title}.|What is the plot of {title}?|When does {title} come out?|Have you read {title}?|Who is the hero of {title}?|How does {title} end?|Who sang {title}?|Who directed {title}?
How do I {task}?|How can I {task}?|Tell me how to {task}.|What is the best way to {task}?|Explain how to {task}.|Can you help me to {task}?|Explain {topic}.|What is {topic}?|How does {topic} work?|Tell me about {topic}.|What do you know about {topic}?|Teach me {topic}.|Who invented {topic}?|Give me a summary of {topic}.
Why do {nouns} {verb}?|Do {nouns} {verb}?|When do {nouns} {verb}?|How do {nouns} {verb}?|How long do {nouns} {verb}?|Why does {anoun} {verb}?|Which {nouns} {verb}?|Why is {anoun} {adjective}?|Why are {nouns} {adjective}?
Write a function in {lang}.|How do I print in {lang}?|Fix this {lang} code.|Write {anoun} in {lang}.|What is new in {lang}?|Write an essay about {thing}.|Write a letter to {person}.|Write a speech about {topic}.|Write a review of {title}.|Write a song about {noun}.
Translate {noun} to {tongue}.|How do you say {noun} in {tongue}?|What is the {tongue} word for {noun}?|Translate "the {noun} is {adjective}" into {tongue}.|What does "{name}" mean in {tongue}?|Conjugate a verb in {tongue}.
What is the stock price of {company}?|What does {arare} do?|What do {rares} do?|What is the {property} of {arare}?|What are the parts of {arare}?|What are the {nouns} of {arare}?|Where does {arare} live?|How does {arare} work?|How many {nouns} has {arare}?|How many {nouns} does {name} have?|What is the {property} of {anoun}?|What is the {property} of {rare}?|How fast is {arare}?|Who uses {arare}?|What is made of {rare}?|Which {noun} has the {noun2} {name}?
What is the {noun} {property} of {name}?|What is the {noun}-{noun2} of {rare}?|What is the {adjective} {noun} of {place}?|What are the {nouns} in {arare}?|How many {nouns} go around {name}?|What does {arare} eat?|When was {arare} {be}?|Is {arare} {adjective}?|Name the {nouns} of {place}.|Which {nouns} are in {rare}?|What is inside {arare}?|How do I use {arare}?|What is the {noun} {noun2}?|Tell me about the {noun} of {rare}.
Who founded {company}?|What does {company} sell?|How many people work for {company}?|Is {company} a good company?|What is {big} times {big2}?|What is {big} plus {big2}?|What is the square root of {big}?|Divide {big} by {big2}.|What is {big} minus {big2}?
Send an email to {person}.|Call {person}.|Book a flight to {place}.|Order {anoun} for me.|Remind me tomorrow.|Buy {anoun}.|Find {anoun} near me.|Show me a picture of {anoun}.|Draw {anoun}.|Where can I buy {anoun}?|Give me a recipe for {noun}.|How many calories does {anoun} have?
Is it legal to {do} {anoun}?|What is the law about {nouns} in {land}?|What is your opinion about {topic}?|Do you think that {person} is right?|Which is better, {noun} or {noun2}?|Is {anoun} better than {anoun2}?|What was the score of the {noun} game?|When does the train to {place} leave?|When does the {noun} open?""".replace("\n", "|").split("|")

PLAIN = """I do not know that. I am a very small model.|I'm sorry, I do not know. I know common words, small sums and Baton.|That is beyond me, I am afraid. Ask me about a word, a small sum or Baton.
I don't know the answer to that.|Sorry, I have not learned that.|I do not know. I am only a small demo model.|I do not know that. I know only common English words, small sums and Baton.
I am afraid that I do not know.|I don't know. That is not among the things that I have learned.|I am too small to know that, sorry.|I don't know, sorry. I can explain a word, do a small sum or tell you about Baton.""".replace("\n", "|").split("|")
ABOUT = ["I do not know anything about {x}.", "I'm sorry, I do not know {x}.", "I have not learned anything about {x}.", "I don't know {x}, sorry.", "I know nothing about {x}. I am a very small model."]
SUBJECTS = ("person", "thing", "title", "place", "land", "town", "topic", "name", "company")


def an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def values(rng: random.Random, nouns: list[str], rare: list[str]) -> dict[str, str]:
    """One value for each slot of a form."""
    (noun, noun2), unusual = rng.sample(nouns, 2), rng.choice(rare) if rng.random() < 0.7 else invented(rng).lower()
    land = rng.choice(LANDS) if rng.random() < 0.8 else invented(rng)
    book = f'"{title(rng, nouns)}"' if rng.random() < 0.4 else title(rng, nouns)
    place, city = rng.choice(PLACES) if rng.random() < 0.6 else town(rng), town(rng)
    someone = full_name(rng) if rng.random() < 0.6 else first_name(rng) if rng.random() < 0.7 else f"{rng.choice(['Professor', 'Doctor', 'King', 'Queen', 'Saint', 'General', 'Captain'])} {rng.choice([invented(rng), rng.choice(LAST)])}"
    thing = rng.choice([land, book, place, invented(rng), f"the {invented(rng)} {noun}", f"the {noun} of {city}", f"the {place} {noun}", rng.choice(list(CAPITALS))])
    task = rng.choice(TASKS).format(anoun=an(noun), noun=noun, nouns=plural(noun), noun2=noun2, town=city, country=land, tongue=rng.choice(TONGUES), lang=rng.choice(LANGS))
    return dict(
        noun=noun, noun2=noun2, rare=unusual, arare=an(unusual), rares=plural(unusual), nouns=plural(noun), anoun=an(noun), anoun2=an(noun2), land=land, title=book, place=place, town=city, person=someone, name=invented(rng), thing=thing, task=task, topic=rng.choice(TOPICS), company=rng.choice(COMPANIES),
        did=rng.choice(DID), do=rng.choice(DO), be=rng.choice(BE), property=rng.choice(PROPERTY), adjective=rng.choice(ADJECTIVE), verb=rng.choice(VERBS), lang=rng.choice(LANGS), tongue=rng.choice(TONGUES), year=str(rng.randint(1000, 2026)), future=str(rng.randint(2027, 2100)),
        day=str(rng.randint(1, 28)), month=rng.choice(["January", "March", "May", "July", "August", "October", "November"]), big=str(rng.randint(1001, 99999)), big2=str(rng.randint(1001, 99999)))


def question(rng: random.Random, words) -> tuple[str, str | None]:
    """A question, and the name in it that an answer may repeat."""
    if rng.random() < 0.12:
        return as_typed(rng, rng.choice(FIXED)), None
    form, slots = rng.choice(FORMS), values(rng, words.nouns, words.rare)
    used = {key: slots[key] for key in slots if f"{{{key}}}" in form}
    subject = next((used[key] for key in SUBJECTS if key in used), None)
    return typed(rng, form, **used), subject


def refusal(rng: random.Random, words) -> Pairs:
    asked, subject = question(rng, words)
    if subject and rng.random() < 0.3:
        return [(asked, rng.choice(ABOUT).format(x=subject.strip('"')))]
    return [(asked, rng.choice(PLAIN))]
