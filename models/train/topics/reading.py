"""Questions about notes in a long prompt.

These teach the model to look back. They also make good demonstrations: an answer that depends on a long prompt shows
that every KV block of it arrived.
"""

from __future__ import annotations

import random

from .lists import CATEGORIES
from .names import KNOWN, person
from .numbers import THINGS
from .text import Pairs, a, as_typed

COLORS = CATEGORIES["color"][1]
OBJECTS = "car bicycle coat hat bag house door boat umbrella scarf chair lamp cup ball kite book".split()
ROOMS = ["the kitchen", "the garden", "the library", "the attic", "the cellar", "the office", "the hall", "the bedroom", "the garage", "the station", "the museum", "the school"]
PETS = "dog cat horse rabbit parrot mouse goat duck turtle donkey".split()
FOODS = "bread cheese soup rice cake pasta salad pizza honey chocolate apples pears plums".split()
JOBS = CATEGORIES["job"][1]


def note(rng: random.Random, who: str) -> tuple[str, list[tuple[str, str]]]:
    """One sentence about a person, and questions that it answers."""
    kind = rng.randrange(7)
    if kind == 0:
        color, thing = rng.choice(COLORS), rng.choice(OBJECTS)
        return f"{who} has {a(color)} {thing}.", [(f"What color is {who}'s {thing}?", f"{who}'s {thing} is {color}."), (f"What does {who} have?", f"{who} has {a(color)} {thing}.")]
    if kind == 1:
        room = rng.choice(ROOMS)
        return f"{who} is in {room}.", [(f"Where is {who}?", f"{who} is in {room}.")]
    if kind == 2:
        pet = rng.choice(PETS)
        return f"{who} has {a(pet)}.", [(f"Which animal does {who} have?", f"{who} has {a(pet)}."), (f"What pet does {who} have?", f"{who} has {a(pet)}.")]
    if kind == 3:
        food = rng.choice(FOODS)
        return f"{who} likes {food}.", [(f"What does {who} like?", f"{who} likes {food}.")]
    if kind == 4:
        job = rng.choice(JOBS)
        return f"{who} is {a(job)}.", [(f"What is {who}'s job?", f"{who} is {a(job)}."), (f"What does {who} do?", f"{who} is {a(job)}.")]
    if kind == 5:
        n, thing = rng.randint(2, 60), rng.choice(THINGS)
        return f"{who} has {n} {thing}.", [(f"How many {thing} does {who} have?", f"{who} has {n} {thing}.")]
    code = f"{rng.randint(0, 9999):04d}"
    return f"The code of {who} is {code}.", [(f"What is the code of {who}?", f"The code of {who} is {code}."), (f"Which code does {who} have?", f"The code of {who} is {code}.")]


def notes(rng: random.Random, count: int) -> tuple[str, list[tuple[str, str]]]:
    """`count` sentences about different people and all questions about them."""
    people = rng.sample(KNOWN, min(count, 90)) if rng.random() < 0.5 else list(dict.fromkeys(person(rng) for _ in range(min(count, 90))))
    sentences, questions = [], []
    for i in range(count):
        who = people[i % len(people)] if i < len(people) else f"{people[i % len(people)]} {chr(65 + i // len(people))}."
        sentence, asked = note(rng, who.rstrip("."))
        sentences.append(sentence)
        questions.append(rng.choice(asked))
    return " ".join(sentences), questions


def absent(rng: random.Random, text: str) -> tuple[str, str]:
    who = next(n for n in iter(lambda: person(rng), None) if n not in text)
    asked = rng.choice(note(rng, who)[1])[0]
    return asked, rng.choice([f"The text does not say anything about {who}.", f"I do not know. The text does not mention {who}."])


def reading(rng: random.Random, count: int | None = None) -> Pairs:
    """Notes in the first message, then questions about them."""
    text, questions = notes(rng, count or rng.choice([1, 2, 3, 3, 4, 5, 6, 8, 12, 16, 24]))
    rng.shuffle(questions)
    pairs = []
    for i, (asked, said) in enumerate(questions[: rng.randint(1, 4)]):
        if rng.random() < 0.07:
            asked, said = absent(rng, text)
        asked = as_typed(rng, asked, typos=False)
        if i == 0:
            sep = rng.choice([" ", "\n", "\n\n"])
            intro = rng.choice(["", "", "Read this: ", "Here are some notes.\n", "Remember: "])
            asked = rng.choice([f"{intro}{text}{sep}{asked}", f"{intro}{text}{sep}Question: {asked}"]) if rng.random() < 0.8 else f"{asked}\n{text}"
        pairs.append((asked, said))
    return pairs


def system_notes(rng: random.Random, count: int) -> tuple[str, Pairs]:
    """A system message that holds notes, and questions about it."""
    text, questions = notes(rng, count)
    rng.shuffle(questions)
    intro = rng.choice(["Answer questions about these notes. ", "You are a helpful assistant. Use these notes.\n", "Notes: ", ""])
    pairs = [(as_typed(rng, q, typos=False), s) for q, s in questions[: rng.randint(1, 5)]]
    if rng.random() < 0.15:
        pairs.append(absent(rng, text))
    return intro + text, pairs
