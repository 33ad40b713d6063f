"""Questions with answers of one word, for system prompts that want no more."""

from __future__ import annotations

import random

from . import numbers, recall
from .lists import CAPITALS, CATEGORIES, DAYS, MONTHS, OPPOSITES, PLANETS
from .text import Pairs, a, as_typed
from .unknown import question as unknown_question

FIXED = [line.split(" = ") for line in """
Hello.|Hi!|Hello there!|Hey|Good day. = Hello.
How are you?|How is it going?|Are you well? = Fine.
Who are you?|What is your name?|What are you called? = Baton.
Are you human?|Are you a person?|Can you see me?|Is the earth flat?|Can a dog fly?|Can a penguin fly?|Is the moon a planet? = No.
Are you a program?|Are you a language model?|Is the sun a star?|Can a bird fly?|Is water wet?|Can you help me? = Yes.
Thank you.|Thanks!|Many thanks. = Welcome.
Goodbye.|Bye!|See you later. = Goodbye.
How many days are in a week?|How many days does a week have? = Seven.
How many months are in a year? = Twelve.
How many hours are in a day? = 24.
How many minutes are in an hour?|How many seconds are in a minute? = 60.
How many legs does a spider have? = Eight.
How many legs does an insect have?|How many legs does an ant have?|How many strings does a guitar have? = Six.
How many legs does a dog have?|How many legs does a cat have?|How many wheels does a car have?|How many strings does a violin have?|How many seasons are there? = Four.
How many legs does a bird have?|How many wheels does a bicycle have?|How many hands do you have if you are human? = Two.
How many sides does a triangle have? = Three.
How many planets are there? = Eight.
How many fingers does a hand have? = Five.
Which planet is the largest?|What is the largest planet? = Jupiter.
Which planet is the smallest?|Which planet is closest to the sun? = Mercury.
Which planet do we live on? = Earth.
What color is the sky? = Blue.
What color is grass? = Green.
What color is snow? = White.
What color is blood? = Red.
What color is a banana?|What color is a lemon? = Yellow.
What do red and blue make? = Purple.
What do blue and yellow make? = Green.
What do bees make? = Honey.
What do cows give us? = Milk.
What do chickens lay? = Eggs.
What does a cat say? = Meow.
What does a cow say? = Moo.
What is the largest animal? = Whale.
What is the tallest animal? = Giraffe.
Which bird cannot fly? = Penguin.
Where does the sun rise? = East.
Where does the sun set? = West.
What is ice made of? = Water.
What is paper made of? = Wood.
What is glass made of? = Sand.
What is cheese made of? = Milk.
Which season is the coldest? = Winter.
Which season is the warmest? = Summer.
Which phase reads the prompt?|What does a prefill worker do? = Prefill.
Which phase writes the answer?|What does a decode worker do? = Decode.
Where does Baton keep its members?|What is the name of the store? = etcd.
""".strip().splitlines()]
NONE = ["Unknown.", "Unknown.", "Unknown.", "Sorry."]


def fixed(rng: random.Random, words) -> tuple[str, str]:
    asked, said = rng.choice(FIXED)
    return as_typed(rng, rng.choice(asked.split("|"))), said


def capital(rng: random.Random, words) -> tuple[str, str]:
    country, city = rng.choice([c for c in CAPITALS.items() if " " not in c[1]])
    return rng.choice([f"What is the capital of {country}?", f"Which city is the capital of {country}?", f"capital of {country}?", f"Name the capital of {country}."]), f"{city}."


def country(rng: random.Random, words) -> tuple[str, str]:
    land, city = rng.choice([c for c in CAPITALS.items() if " " not in c[0]])
    return f"{city} is the capital of which country?", f"{land}."


def total(rng: random.Random, words) -> tuple[str, str]:
    op = rng.choice(["add", "add", "sub", "mul"])
    x, y, z = numbers.fresh(rng, op)
    return as_typed(rng, numbers.question(rng, op, x, y), typos=False), f"{z}."


def opposite(rng: random.Random, words) -> tuple[str, str]:
    word, other = rng.choice(list(OPPOSITES.items()))
    return as_typed(rng, rng.choice([f"What is the opposite of {word}?", f"opposite of {word}", f"Tell me the opposite of {word}.", f"What is the antonym of {word}?"])), f"{other.capitalize()}."


def synonym(rng: random.Random, words) -> tuple[str, str]:
    entry = rng.choice(words.with_synonyms)
    return as_typed(rng, rng.choice([f"What is another word for {entry['word']}?", f"Give me a synonym for {entry['word']}."])), f"{entry['synonyms'][0].capitalize()}."


def meaning(rng: random.Random, words) -> tuple[str, str]:
    entry = rng.choice(words.with_kind)
    word = entry["word"]
    said = entry["kind"].removeprefix("kind of ").removeprefix("piece of ").split()[-1]
    return as_typed(rng, rng.choice([f"What is {a(word)}?", f"Define {word}.", f"What kind of thing is {a(word)}?", f"Explain {word}.", f"What does {word} mean?"])), f"{said.capitalize()}."


def member(rng: random.Random, words) -> tuple[str, str]:
    category = rng.choice([c for c in CATEGORIES if " " not in c])
    items = CATEGORIES[category][1]
    if rng.random() < 0.4:
        return as_typed(rng, rng.choice([f"Name {a(category)}.", f"Tell me {a(category)}.", f"Give me an example of {a(category)}."])), f"{rng.choice(items).capitalize()}."
    asked = category if rng.random() < 0.5 else rng.choice([c for c in CATEGORIES if " " not in c])
    thing = rng.choice(items)
    if thing not in CATEGORIES[asked][1] and {asked, category} & {"animal", "food", "tree", "flower", "vegetable", "fruit", "drink"}:
        return fixed(rng, words)
    return as_typed(rng, f"Is {a(thing)} {a(asked)}?"), "Yes." if thing in CATEGORIES[asked][1] else "No."


def compared(rng: random.Random, words) -> tuple[str, str]:
    x, y = rng.sample(range(100), 2)
    kind = rng.randrange(4)
    if kind == 0:
        return f"Which is larger, {x} or {y}?", f"{max(x, y)}."
    if kind == 1:
        return f"Is {x} larger than {y}?", "Yes." if x > y else "No."
    if kind == 2:
        return f"Is {x} even or odd?", "Odd." if x % 2 else "Even."
    return f"What comes after {x}?", f"{x + 1}."


def following(rng: random.Random, words) -> tuple[str, str]:
    names = rng.choice([DAYS, MONTHS, PLANETS])
    i = rng.randrange(len(names) - 1)
    return rng.choice([(f"What comes after {names[i]}?", f"{names[i + 1]}."), (f"What comes before {names[i + 1]}?", f"{names[i]}.")])


def letter(rng: random.Random, words) -> tuple[str, str]:
    word = words.pick(rng)["word"]
    return rng.choice([(f"What is the first letter of {word}?", f"{word[0].upper()}."), (f"What is the last letter of {word}?", f"{word[-1].upper()}.")])


def unknown(rng: random.Random, words) -> tuple[str, str]:
    return unknown_question(rng, words)[0], rng.choice(NONE)


SOURCES = [(fixed, 5), (capital, 3), (country, 0.5), (total, 3), (opposite, 2), (synonym, 1), (meaning, 2), (member, 2), (compared, 1), (following, 1), (letter, 0.5), (unknown, 1.5)]


def terse(rng: random.Random, words) -> Pairs:
    """A question and its answer of one word; or something told, asked for later."""
    if rng.random() < 0.2:
        about = recall.fact(rng, words.things)
        if " " not in about.short:
            return [(recall.verbatim(rng, about.told), rng.choice(["Noted.", "Okay.", "Understood.", "Hello."])), (recall.ask(rng, about), f"{about.short}.")]
    source = rng.choices([s for s, _ in SOURCES], [w for _, w in SOURCES])[0]
    return [source(rng, words)]
