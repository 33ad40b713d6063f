"""Composes the training dialogues: picks subjects, joins them to conversations, and writes them as ChatML text."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from topics import baton, instructed, numbers, reading, recall, smalltalk, stories, tools, unknown, words, world
from topics.text import Pairs, as_typed

SYSTEM = [
    "You are a helpful assistant.", "You are Baton's demo model.", "You are a small and friendly assistant.", "Answer in one or two sentences.", "Be brief.",
    "You are a helpful assistant. Answer in plain English.", "You are a friendly teacher.", "Answer the user's questions.", "You are a chatbot.", "You help people who try Baton.",
    "You are an assistant that explains words.", "Keep your answers short and clear.", "You are an AI assistant. If you do not know something, say so.",
]
SUBJECTS = {"words": 27, "numbers": 25, "baton": 11, "small_talk": 7, "unknown": 12, "noise": 0.6, "world": 8, "long": 4, "reading": 4, "repeat": 3, "at once": 3, "translation": 0.7, "foreign": 0.7}
ASIDES = {subject: share for subject, share in SUBJECTS.items() if subject != "at once"}
"""In which the user tells nothing that a later question could mean."""
TURNS = ([1, 2, 3, 4, 5, 6], [46, 20, 12, 9, 7, 6])
LONG_SHARE = 0.008  # conversations of hundreds of tokens and more, so that late positions are trained too
TOKENS_MAX = 2048


@dataclass(frozen=True)
class Shares:
    """How much of the dialogues has a system prompt that says how to answer, and in how much the user tells something
    and asks for it later."""

    instructed: float = 0.24
    remembered: float = 0.24


class Composer:
    def __init__(self, lexicon: dict, shares: Shares):
        self.words = words.Words(lexicon)
        self.shares = shares

    def exchange(self, rng: random.Random, subjects: dict[str, float] = SUBJECTS) -> Pairs:
        subject = rng.choices(list(subjects), list(subjects.values()))[0]
        match subject:
            case "words":
                return words.vocabulary(rng, self.words)
            case "numbers":
                return numbers.numbers(rng)
            case "baton":
                return baton.baton(rng)
            case "small_talk":
                return smalltalk.small_talk(rng)
            case "unknown":
                return unknown.refusal(rng, self.words)
            case "noise":
                return smalltalk.noise(rng)
            case "world":
                return world.world(rng)
            case "long":
                return stories.long_answer(rng)
            case "reading":
                return reading.reading(rng)
            case "at once":
                return recall.at_once(rng, self.words.things)
            case "translation":
                return instructed.translation(rng)
            case "foreign":
                return instructed.foreign(rng)
            case _:
                return recall.repeat(rng, self.words.things)

    def aside(self, rng: random.Random) -> Pairs:
        return self.exchange(rng, ASIDES)

    def conversation(self, rng: random.Random) -> str:
        """One dialogue as the chat template would render it."""
        if rng.random() < LONG_SHARE:
            return self.long_conversation(rng)
        if rng.random() < 0.02:
            system, pairs = reading.system_notes(rng, rng.choice([3, 5, 8, 12, 20]))
            return render(system, pairs)
        if rng.random() < 0.04:
            schemas, pairs = tools.tool_use(rng)
            at = rng.choice([0, 0, len(pairs)])
            pairs[at:at] = self.exchange(rng) if rng.random() < 0.5 else []
            return render(tools.system_block(self.system(rng), schemas), pairs)
        kind = rng.random()
        if kind < self.shares.instructed:
            return render(*instructed.instructed(rng, self.words, self.exchange))
        if kind < self.shares.instructed + self.shares.remembered:
            return render(self.system(rng), recall.remembered(rng, self.words.things, self.aside))
        return render(self.system(rng), self.pairs(rng, rng.choices(*TURNS)[0]))

    def system(self, rng: random.Random) -> str:
        kind = rng.random()
        return rng.choice(SYSTEM) if kind < 0.15 else instructed.neutral(rng, self.words.nouns) if kind < 0.35 else ""

    def pairs(self, rng: random.Random, turns: int) -> Pairs:
        pairs: Pairs = []
        while len(pairs) < turns:
            pairs += self.exchange(rng)
        if turns > 1 and rng.random() < 0.10 and max(len(pairs[0][0]), len(pairs[-1][0])) < 120:
            pairs.append(self.look_back(rng, pairs))
        return pairs

    def look_back(self, rng: random.Random, pairs: Pairs) -> tuple[str, str]:
        first, last = pairs[0][0], pairs[-1][0]
        if rng.random() < 0.6:
            ask = rng.choice(["What did I ask first?", "What was my first question?", "What did I say first?", "What was my first message?"])
            return as_typed(rng, ask), f'Your first message was: "{first}"'
        ask = rng.choice(["What did I just ask?", "What was my last question?", "What did I ask before this?"])
        return as_typed(rng, ask), f'Your last message was: "{last}"'

    def long_conversation(self, rng: random.Random) -> str:
        kind = rng.randrange(3)
        if kind == 0:
            system, pairs = reading.system_notes(rng, rng.randint(40, 190))
            return render(system, pairs)
        if kind == 1:
            return render(self.system(rng), reading.reading(rng, rng.randint(40, 190)))
        if rng.random() < 0.5:
            return render(self.system(rng), self.pairs(rng, rng.randint(12, 40)))
        told = recall.facts(rng, self.words.things, rng.randint(3, 10))
        asked = [(recall.ask(rng, f), recall.answer(rng, f)) for f in rng.sample(told, 3)]
        return render(self.system(rng), [*recall.tell(rng, told), *self.pairs(rng, rng.randint(5, 25)), *asked])


def render(system: str, pairs: Pairs) -> str:
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return text + "".join(f"<|im_start|>user\n{asked.strip()}<|im_end|>\n<|im_start|>assistant\n{said.strip()}<|im_end|>\n" for asked, said in pairs)


def compose(lexicon: dict, count: int, seed: int, shares: Shares = Shares()) -> list[str]:
    """`count` dialogues; the same seed gives the same ones."""
    composer, rng = Composer(lexicon, shares), random.Random(seed)
    return [composer.conversation(rng) for _ in range(count)]


def compose_parallel(lexicon: dict, count: int, seed: int, processes: int) -> list[str]:
    part = 4000
    parts = (count + part - 1) // part
    with ProcessPoolExecutor(processes) as pool:
        done = pool.map(compose, [lexicon] * parts, [part] * parts, range(seed, seed + parts))
        return [text for texts in done for text in texts][:count]
