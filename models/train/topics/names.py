"""Names of people and places: known ones, and invented ones in many spellings.

Most names in the dialogues are invented, so that repeating a name is learned as copying, not as choosing from a list.
"""

from __future__ import annotations

import random

from held_out import UNSEEN_WORDS

from .lists import NAMES, PLACES

MORE_NAMES = """Abigail Agnes Ahmed Aiko Akira Alejandro Aline Amara Anders Andrea Anton Arjun Arthur Ayesha Barbara Beatriz Bernd Bjorn Brian Bruno
Camila Cecilia Charles Chiara Chloe Christopher Connor Daniel Dario Deborah Deepa Dmitri Dorothy Eduardo Edith Eleanor Elif Elizabeth Emil Enzo Ernest
Esther Ethan Eva Fabian Farid Felicia Fernando Finn Florence Francis Gabriel Gareth Gerald Giulia Gloria Gustav Hamid Harold Haruto Heidi Helena Hiro
Ibrahim Igor Imani Indira Ingrid Irina Isabella Jamal James Jasmine Javier Jin Joan Johanna John Jorge Joseph Jun Kamal Karim Katarina Keiko Kim Klaus
Lakshmi Leila Linda Ling Lorenzo Lucia Luis Magnus Malik Manuel Margaret Marco Marta Martin Mary Matthias Maya Mehmet Michael Miguel Mikhail Min Mohamed
Nadia Naomi Natasha Nikolai Noor Oleg Olivia Omari Pablo Patrick Pavel Pedro Philip Rachel Rafael Rahul Rania Raymond Rebecca Ricardo Robert Rohan Roland
Samuel Sandra Sanjay Santiago Sean Sergei Shreya Sigrid Stefan Stella Susan Tariq Tatiana Thomas Tomas Usman Valentina Vikram Viktor Virginia Walter
Wei William Xavier Yasmin Yusuf Zainab Zara""".split()
KNOWN = NAMES + MORE_NAMES
LAST = """Smith Jones Miller Brown Novak Tanaka Rossi Garcia Kim Singh Larsen Weber Dubois Silva Costa Okafor Petrov Moreau Walker Hill Adams Becker
Campbell Fischer Haddad Ivanova Jensen Kowalski Lindberg Mbeki Nakamura Ortega Patel Quinn Reyes Schmidt Taylor Vargas Watanabe Young Zhang""".split()

WORDS = """Rose Hope Will May Mark Grace Joy Faith Dawn Summer Autumn Ivy Violet Hunter Cooper Mason Baker Cook Archer Reed Stone Rock River Sky Star Bear Wolf Fox Robin Jay Drew Pat Bill Frank Art Rusty Sunny Happy Lucky Buddy Shadow Snowball Biscuit Pepper
Ginger Cookie Angel Prince Duke Queen Chance Chase Penny Ruby Pearl Amber Olive Basil Sage Heather Daisy Lily Holly Ash Forest Brook Glen Cliff Sandy Misty Storm Rain Snowy Tiger Spot Socks Boots Button Pebble Nugget Waffle Mocha Toffee Smokey Bandit Rocket Comet
Blaze Flash Ace Max King Bishop Knight Page Carter Taylor Tanner Porter Miles Rich Gene Ray Dean Guy Rob Sue Pierce Grant Chip Dot Bee Dolly Melody Harmony Victor Earnest Constant True West North""".split()
"""Words that are names, too."""
PARTICLES = ["van", "van der", "von", "de", "de la", "di", "bin", "la", "del", "af", "ter"]

ONSETS = "b bl br c ch chr d dh dr f fl fr g gh gl gr gw h j k kh kl kn kr l ll m mc n ng p ph pl pr q qu r rh s sc sch sh shr sk sl sm sn st str sv sz t th tr ts tz v vl w wh x y z zb zh zl".split()
EASY_ONSETS = "b c d f g h j k l m n p r s t v w y z".split()
VOWELS = "a e i o u y aa ae ai ao au ea ee ei eo eu ia ie io oa oe oi oo ou ua ue ui uo".split()
EASY_VOWELS = "a e i o u".split()
CODAS = "b ck d ff g gh k l ll lm ln m n nd ng nk nn p ph r rd rk rn rr rt s sh ss st sz t th tt tz v x z zz".split()
ENDINGS = "a o e i y ia ius us is ara elle ette iel ina ine ira ius ka ko la li lyn mir na nne no os ra ric rin sha sko slav son ta ten th tia to vin wen yn za".split()
ACCENTS = {"a": "áàâäãåąăāæ", "c": "çćč", "d": "ďđð", "e": "éèêëęěėē", "g": "ğģ", "i": "íîïīì", "k": "ķ", "n": "ñńňņ", "o": "óôöõøőòō", "r": "řŕ", "s": "śšşșß", "t": "ťţțþ", "u": "úûüůūùű", "y": "ýÿ", "z": "źžż", "l": "łľļ"}
VOWEL_LETTERS, ALPHABET = "aeiouy", "abcdefghijklmnopqrstuvwxyz"
TOWN_ENDINGS = "ville burg berg ton ham stad grad pur abad holm field ford mouth wick by dorf polis haven more stan land ia ara ora".split()


def syllables(rng: random.Random, count: int, easy: bool) -> str:
    onsets, vowels = (EASY_ONSETS, EASY_VOWELS) if easy else (ONSETS, VOWELS)
    closed = 0.3 if easy else 0.45
    return "".join(rng.choice(onsets) + rng.choice(vowels) + (rng.choice(CODAS) if rng.random() < closed else "") for _ in range(count))


def altered(rng: random.Random) -> str:
    """A known name in a spelling of its own: Jessica as Jyssika."""
    letters = list(rng.choice(KNOWN).lower())
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(letters))
        pool = VOWEL_LETTERS if letters[at] in VOWEL_LETTERS else ALPHABET
        letters[at] = rng.choice([rng.choice(pool), letters[at] * 2, letters[at] + rng.choice(pool), letters[at] + "h"])
    return "".join(letters)


def crossed(rng: random.Random) -> str:
    """The beginning of one known name and the end of another."""
    first, second = rng.choice(KNOWN).lower(), rng.choice(KNOWN).lower()
    return first[: rng.randint(2, 4)] + second[-rng.randint(2, 4) :]


def accented(rng: random.Random, word: str) -> str:
    at = [i for i, letter in enumerate(word) if letter in ACCENTS]
    if not at:
        return word
    i = rng.choice(at)
    return word[:i] + rng.choice(ACCENTS[word[i]]) + word[i + 1 :]


def invented(rng: random.Random) -> str:
    """A word that could be a name, capitalized; never one that the evaluation uses."""
    word = drawn(rng)
    return invented(rng) if word.lower() in UNSEEN_WORDS else word


def drawn(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.30:
        word = syllables(rng, rng.choice([1, 2, 2, 3]), easy=True)
    elif kind < 0.55:
        word = syllables(rng, rng.choice([1, 1, 2, 2]), easy=False)
    elif kind < 0.70:
        word = syllables(rng, rng.choice([1, 1, 2]), easy=rng.random() < 0.5) + rng.choice(ENDINGS)
    elif kind < 0.82:
        word = altered(rng)
    elif kind < 0.92:
        word = crossed(rng)
    else:
        word = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(3, 8)))
    if rng.random() < 0.08:
        word = accented(rng, word)
    return word.capitalize() if len(word) > 1 else f"{word}o".capitalize()


def first_name(rng: random.Random) -> str:
    return rng.choice(KNOWN) if rng.random() < 0.3 else invented(rng)


def person(rng: random.Random) -> str:
    """How someone is called: mostly one name, sometimes two, with a hyphen, or all in small letters."""
    name, kind = first_name(rng), rng.random()
    if kind < 0.76:
        return name
    if kind < 0.79:
        return rng.choice(WORDS)
    if kind < 0.81:
        return f"{name} {rng.choice(PARTICLES)} {invented(rng)}" if rng.random() < 0.6 else f"{name[0].upper()}. {rng.choice(LAST)}"
    if kind < 0.86:
        return f"{name} {rng.choice(LAST) if rng.random() < 0.4 else invented(rng)}"
    if kind < 0.89:
        return f"{name}-{first_name(rng)}"
    if kind < 0.91:
        return rng.choice(["O'", "Mc", "D'", "Mac", "El-", "Al-"]) + invented(rng)
    if kind < 0.98:
        return name.lower()
    return name.upper()


def full_name(rng: random.Random) -> str:
    return f"{first_name(rng)} {rng.choice(LAST) if rng.random() < 0.4 else invented(rng)}"


def town(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(PLACES)
    if kind < 0.6:
        return (syllables(rng, rng.choice([1, 1, 2]), easy=True) + rng.choice(TOWN_ENDINGS)).capitalize()
    if kind < 0.65:
        return rng.choice(["New ", "Port ", "San ", "East ", "Lake ", "Mount "]) + invented(rng)
    return invented(rng)


def title(rng: random.Random, nouns: list[str]) -> str:
    """The name of a book or film that does not exist."""
    first, second = rng.choice(nouns).capitalize(), rng.choice(nouns).capitalize()
    return rng.choice([f"The {first} of {invented(rng)}", f"The {first} and the {second}", f"{first} in the {second}", f"The Last {first}", f"{invented(rng)}", f"A {first} for {invented(rng)}"])
