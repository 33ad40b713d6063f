"""Small helpers that every subject uses."""

from __future__ import annotations

import random
import string

Pairs = list[tuple[str, str]]
"""Question and answer, in order; later questions may refer to earlier ones."""


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0].lower() in "aeio" or noun.startswith(("umb", "ugl", "upp", "unc")) else "a ") + noun


def plural(noun: str) -> str:
    head, _, rest = noun.partition(" of ")
    if head.endswith(("s", "sh", "ch", "x")):
        head += "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        head = head[:-1] + "ies"
    else:
        head = {"fish": "fish", "sheep": "sheep", "deer": "deer", "child": "children"}.get(head, head + "s")
    return f"{head} of {rest}" if rest else head


def listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def typo(rng: random.Random, text: str) -> str:
    """One slip of the fingers inside a word."""
    at = [i for i in range(1, len(text) - 2) if text[i].isalpha() and text[i + 1].isalpha() and text[i - 1].isalpha()]
    if len(at) < 6:
        return text
    i = rng.choice(at)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    if kind == 2:
        return text[:i] + text[i] + text[i:]
    return text[:i] + rng.choice(string.ascii_lowercase) + text[i + 1 :]


def as_typed(rng: random.Random, text: str, typos: bool = True) -> str:
    """A question the way people type it: lower case, no question mark, "please", a slip."""
    if rng.random() < 0.06 and not text.lower().startswith(("please", "hi", "hello")):
        text = f"Please {text[0].lower()}{text[1:]}" if rng.random() < 0.4 else f"{text.rstrip('.?!')}, please{text[-1] if text[-1] in '.?' else ''}"
    elif rng.random() < 0.05:
        opener = rng.choice(["Hey, ", "Hi, ", "Ok, ", "Hello! ", "Well, ", "So, ", "Quick question: ", "And ", "Tell me: ", "I wonder: ", "My question is: ", "Please answer: ", "I have a question: ", "One question: ", "I want to know: ", "Say, "])
        text = opener + (text if opener.endswith("! ") else text[0].lower() + text[1:])
    style = rng.random()
    if style < 0.22:
        text = text.lower()
    elif style < 0.30:
        text = text[0].lower() + text[1:]
    elif style < 0.32:
        text = text.upper()
    if rng.random() < 0.25:
        text = text.rstrip("?.!")
    elif rng.random() < 0.02:
        text += rng.choice(["!", " ?", "??", " :)"])
    if typos and rng.random() < 0.04:
        text = typo(rng, text)
    return text


def typed(rng: random.Random, form: str, **values: str) -> str:
    """A form the way people type it, with `{key}` replaced afterwards: a name or a number is never misspelt."""
    marks = {key: chr(0xE000 + i) for i, key in enumerate(values)}
    text = as_typed(rng, form.format(**marks))
    for key, mark in marks.items():
        text = text.replace(mark, str(values[key]))
    return text
