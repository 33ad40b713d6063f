"""What people talk about: things of one, two or three words, people by what they are, and what tells one of them from another.

A name after "is called" is easy to find; a name after "my spare bike lock in the cellar is called" has to be looked for.
"""

from __future__ import annotations

import random

from held_out import FACTS, UNSEEN_WORDS

from .lists import CATEGORIES, DAYS, MONTHS
from .names import invented, town
from .verbs import gerund

PERSONS = """sister|brother|mother|father|wife|husband|son|daughter|friend|boss|teacher|neighbor|cousin|uncle|aunt|grandmother|grandfather|doctor|partner|colleague|coach|landlord|baker|student|best friend|niece|nephew|twin|stepmother|stepfather|half-brother|half-sister|mother-in-law|brother-in-law|sister-in-law
godmother|godfather|fiancé|ex-wife|ex-husband|great-aunt|great-uncle|roommate|flatmate|tenant|lodger|pen pal|nanny|babysitter|assistant|secretary|client|customer|patient|trainer|guide|tutor|pupil|apprentice|manager|rival|classmate|teammate|landlady|housekeeper|bodyguard|accountant|barber|mechanic
therapist|surgeon|pharmacist|optician|vet|priest|captain|conductor|agent|broker|editor|supplier|host|guest|girlfriend|boyfriend|oldest son|youngest daughter|first wife|second cousin|little sister|big brother|other half|late uncle""".replace("\n", "|").split("|")
JOBS = CATEGORIES["job"][1] + "clerk driver singer poet miner judge guard dentist fisherman locksmith translator florist geologist watchmaker beekeeper".split()
AGENTS = "teacher driver seller keeper maker instructor expert officer painter player dealer tuner cleaner trainer hunter collector critic doctor guard inspector supplier manager tutor reader lender helper fan partner lady man person guy".split()
ADJECTIVES = """old new red blue green big small little spare lost rusty broken golden silver wooden leather plastic paper woolen heavy light loud quiet fast slow wild tame fat thin tall short long round flat sharp soft hard warm cold wet dry clean dirty dark bright cheap expensive fancy plain pretty ugly funny sad angry brave lazy
clever silly shy proud noisy hungry sleepy magic secret favorite private public main first second third last next former future front rear upper lower inner outer left right local foreign French Greek Polish Irish Dutch Turkish Roman royal digital electric mechanical antique modern stolen borrowed rented frozen painted striped
spotted hairy woolly fluffy dusty squeaky crooked shiny hidden folding electric homemade second-hand giant tiny double single double-decker one-eyed three-legged good bad best worst strange famous unknown empty full open closed weekly daily""".split()
HEADS = "key lock bag box book card case bottle machine cover holder tree stone bell boat bike chair table lamp clock ring coat hat jacket shoe knife brush pot pan cup glass stand shop shed club house room door desk drawer cabinet tool toy doll puppet plant pump pipe string pad screen phone camera collection gate wagon car trailer tent mat basket tray".split()
PLACE = "in the|on the|at the|behind the|next to the|near the|under the|above the|beside the|opposite the|from the|across from the|outside the|inside the|by the".split("|")
NEAR = """at school|at work|at home|upstairs|downstairs|next door|across the street|down the road|on the first floor|on the third floor|in the village|in the city|in our street|in my street|in the north|by the sea|at the office|at the club|in the back|on the left|to the right|abroad|over there|out here|on the other side|in my family|in my class|in my team|at the market|in the country
of many years|from work|from school|from next door|from upstairs|from abroad|from my childhood|for the weekend|for the evenings|for emergencies|in the mornings|at night|these days|since last year|at the moment|nowadays|until further notice|this season|as of today""".replace("\n", "|").split("|")
ASIDES = "as you know|by the way|of course|it seems|I think|I believe|as it happens|oddly enough|if I may say so|believe me|to be exact|for your information|as always|strangely|to my delight|in case it matters|just like last year|as far as I know|I am told|mind you|luckily|in fact|you see".split("|")
HELD_OUT = " ".join(f" {new.lower()} " for _, _, new in FACTS)


def held_out(thing: str) -> bool:
    """Whether the evaluation keeps this thing, or a word of it, for itself."""
    return f" {thing.lower()} " in HELD_OUT or thing.lower() in UNSEEN_WORDS


class Things:
    """Names for things, out of the lexicon's words."""

    def __init__(self, nouns: list[str], verbs: list[str], rare: list[str]):
        self.nouns = nouns
        self.gerunds = [gerund(v) for v in verbs]
        self.rare = [w for w in rare if not held_out(w)]

    def noun(self, rng: random.Random) -> str:
        kind = rng.random()
        return rng.choice(self.nouns) if kind < 0.80 else rng.choice(HEADS) if kind < 0.88 else rng.choice(self.rare) if kind < 0.96 else invented(rng).lower()

    def thing(self, rng: random.Random) -> str:
        """One to three words: umbrella, bus ticket, singing lamp, old rabbit cage."""
        made = self.drawn(rng)
        return self.thing(rng) if held_out(made) else made

    def drawn(self, rng: random.Random) -> str:
        kind, noun = rng.random(), self.noun(rng)
        if kind < 0.42:
            return noun
        if kind < 0.66:
            return f"{self.noun(rng)} {rng.choice(HEADS) if rng.random() < 0.4 else noun}"
        if kind < 0.84:
            return f"{rng.choice(ADJECTIVES)} {noun}"
        if kind < 0.93:
            return f"{rng.choice(self.gerunds)} {noun}"
        return f"{rng.choice([*ADJECTIVES, *self.nouns])} {self.noun(rng)} {rng.choice(HEADS)}" if kind < 0.98 else f"{noun}-{self.noun(rng)}"

    def qualified(self, rng: random.Random, tail: str) -> str:
        """One word more before a thing: attic code."""
        made = f"{self.noun(rng)} {tail}"
        return self.qualified(rng, tail) if held_out(made) else made

    def someone(self, rng: random.Random) -> str:
        """What a person is to the user: sister, old boss, cello teacher."""
        kind = rng.random()
        if kind < 0.55:
            made = rng.choice(PERSONS)
        elif kind < 0.75:
            made = rng.choice(JOBS)
        elif kind < 0.88:
            made = f"{self.noun(rng)} {rng.choice(AGENTS)}"
        else:
            made = f"{rng.choice(ADJECTIVES)} {rng.choice(rng.choice([PERSONS, JOBS]))}"
        return self.someone(rng) if held_out(made) else made

    def which(self, rng: random.Random) -> str:
        """What comes between a thing and what is said of it, with its blanks and commas."""
        kind = rng.random()
        if kind < 0.35:
            return f" {rng.choice(NEAR)} "
        if kind < 0.50:
            return f" {rng.choice(PLACE)} {self.thing(rng)} "
        if kind < 0.62:
            return f" {rng.choice(['from', 'in', 'near', 'of', 'to'])} {town(rng)} "
        if kind < 0.72:
            return f" with the {self.thing(rng)} "
        if kind < 0.80:
            return f" on {rng.choice(DAYS)}s "
        if kind < 0.86:
            return f", since {rng.choice([*MONTHS, *DAYS, 'last week', 'yesterday', 'the accident', 'the wedding'])}, "
        return f", {rng.choice(ASIDES)}, "
