"""Definitions, synonyms, opposites, kinds, examples, categories, spelling; and words that the model does not know."""

from __future__ import annotations

import random

from held_out import UNSEEN_WORDS

from .lists import CATEGORIES, OPPOSITES
from .names import invented
from .text import Pairs, a, as_typed, listed, plural, typed
from .things import Things

ASK = {
    "n": ["What is {a}?", "What is {a}?", "What's {a}?", "Define {w}.", "What does {w} mean?", "What does the word {w} mean?",
          "Explain what {a} is.", "Can you explain {w}?", "What is the meaning of {w}?", "Tell me what {a} is.", "Do you know what {a} is?",
          "Give me a definition of {w}.", "definition of {w}", "{w}?", "{w}", "What is {w}?", "Explain {w}.", 'What does "{w}" mean?', "What are {p}?", "meaning of {w}"],
    "v": ["What does {w} mean?", "What does it mean to {w}?", "Define {w}.", "What is the meaning of {w}?", "Explain the word {w}.",
          'What does "{w}" mean?', "What does to {w} mean?", "{w}?", "{w}", "Give me a definition of {w}.", "What does the verb {w} mean?", "definition of {w}"],
    "a": ["What does {w} mean?", "Define {w}.", "What is the meaning of {w}?", "Explain the word {w}.", 'What does "{w}" mean?',
          "What does it mean to be {w}?", "{w}?", "{w}", "What is {w}?", "Give me a definition of {w}.", "What does the word {w} mean?"],
}
for forms in ASK.values():
    forms += ["Do you know what {w} means?", "Do you know the word {w}?", "What could {w} mean?", "Tell me the meaning of {w}.", "What is the definition of {w}?", "Tell me what {w} means.", "I do not know the word {w}.", "Explain {w} to me.", "Can you define {w}?", "Can you tell me what {w} means?"]
ASK["r"] = [q for q in ASK["a"] if "to be" not in q]
MORE = {
    "example": ["Give me an example.", "Can you give me an example?", "Use it in a sentence.", "For example?", "An example, please.", "How is it used?", "Show me an example sentence."],
    "kind": ["What kind of thing is it?", "What kind of thing is that?", "What sort of thing is it?", "What is it a kind of?"],
    "synonyms": ["What is another word for it?", "Is there another word for that?", "Do you know a synonym?", "Give me a synonym."],
    "opposite": ["What is the opposite?", "And the opposite?", "What is its opposite?", "Do you know the opposite?"],
    "also": ["Does it have another meaning?", "What else can it mean?", "Can it mean something else?", "Any other meaning?"],
}


class Words:
    """The lexicon, arranged for asking."""

    def __init__(self, lexicon: dict):
        self.entries = lexicon["entries"]
        self.by_word = {e["word"]: e for e in self.entries}
        self.rare = [w for w in lexicon["rare"] if w not in UNSEEN_WORDS]
        self.nouns = [e["word"] for e in self.entries[:2000] if e["pos"] == "n"]
        self.things = Things(self.nouns, [e["word"] for e in self.entries[:2500] if e["pos"] == "v"], self.rare)
        # The words listed first are the ones people try first: they come up more often.
        self.weights = [6.0 if i < 700 else 2.0 if e["score"] > 6 else 1.0 for i, e in enumerate(self.entries)]
        self.cumulative = [sum(self.weights[: i + 1]) for i in (len(self.weights) - 1,)]
        total, self.cumulative = 0.0, []
        for w in self.weights:
            total += w
            self.cumulative.append(total)
        self.with_opposite = [e for e in self.entries if e["opposite"]]
        self.with_synonyms = [e for e in self.entries if e["synonyms"]]
        self.with_kind = [e for e in self.entries if e["kind"]]
        self.with_example = [e for e in self.entries if e["example"]]
        self.member_of = {m: c for c, (_, members) in CATEGORIES.items() for m in members}

    def pick(self, rng: random.Random) -> dict:
        return rng.choices(self.entries, cum_weights=self.cumulative)[0]


def ask_meaning(rng: random.Random, entry: dict) -> str:
    w = entry["word"]
    form = rng.choice(ASK[entry["pos"]])
    if "{p}" in form and w.endswith("s"):
        form = "What is {a}?"
    return as_typed(rng, form.format(w=w, a=a(w), p=plural(w)))


def more(rng: random.Random, entry: dict, what: str) -> str | None:
    w = entry["word"]
    if what == "example":
        return rng.choice(["For example: {}", "Here is an example: {}"]).format(entry["example"]) if entry["example"] else None
    if what == "kind":
        return f"It is a kind of {entry['kind'].removeprefix('kind of ').removeprefix('piece of ')}." if entry["kind"] else None
    if what == "synonyms":
        return f"Another word for {w} is {entry['synonyms'][0]}." if entry["synonyms"] else None
    if what == "opposite":
        return f"The opposite of {w} is {OPPOSITES.get(w, entry['opposite'])}." if entry["opposite"] else None
    return f"Yes. {entry['also']}" if entry["also"] else "I know only that one meaning."


def meaning(rng: random.Random, words: Words) -> Pairs:
    entry = words.pick(rng)
    text = entry["definition"]
    style = rng.random()
    if style < 0.25 and entry["example"]:
        text += f" For example: {entry['example']}"
    pairs = [(ask_meaning(rng, entry), text)]
    for what in rng.sample(list(MORE), rng.choice([0, 0, 1, 1, 2])):
        said = more(rng, entry, what)
        if said:
            pairs.append((as_typed(rng, rng.choice(MORE[what])), said))
        elif rng.random() < 0.25:
            none = {"example": "I have no example of that word.", "kind": "I do not know a more general word for it.",
                    "synonyms": f"I do not know another word for {entry['word']}.", "opposite": f"I do not know an opposite of {entry['word']}."}
            pairs.append((as_typed(rng, rng.choice(MORE[what])), none[what]))
    return pairs


def about(rng: random.Random, words: Words) -> Pairs:
    """A longer answer that says all we have about a word."""
    entry = words.pick(rng) if rng.random() < 0.4 else rng.choice(words.entries[:900])
    w, text = entry["word"], [entry["definition"]]
    if entry["kind"]:
        text.append(f"It is a kind of {entry['kind'].removeprefix('kind of ').removeprefix('piece of ')}.")
    category = words.member_of.get(w)
    if category:
        others = following(CATEGORIES[category][1], CATEGORIES[category][1].index(w) + 1, 3)
        text.append(f"Other {plural(category)} are the {others[0]}, the {others[1]} and the {others[2]}." if category in ("animal", "bird", "insect", "tool", "vehicle", "musical instrument", "reptile")
                    else f"{others[0].capitalize()}, {others[1]} and {others[2]} belong to the same group.")
    if entry["synonyms"]:
        text.append(f"Another word for it is {entry['synonyms'][0]}.")
    if entry["opposite"]:
        text.append(f"The opposite is {OPPOSITES.get(w, entry['opposite'])}.")
    if entry["also"]:
        text.append(f"The word has another meaning, too. {entry['also']}")
    if entry["example"]:
        text.append(f"Here is an example: {entry['example']}")
    text.append(f'The word "{w}" has {len(w)} letters.')
    thing = a(w) if entry["pos"] == "n" and entry["definition"].startswith(("A ", "An ")) else w
    ask = rng.choice(["Tell me about {t}.", "Tell me about the word {w}.", "What can you tell me about {t}?", "Tell me everything about {w}.", "Talk about {w}.",
                      "Tell me about {p}." if entry["pos"] == "n" and not w.endswith("s") else "Tell me about {w}.", "Describe {t}."])
    return [(as_typed(rng, ask.format(t=thing, w=w, p=plural(w))), " ".join(text))]


def synonym(rng: random.Random, words: Words) -> Pairs:
    entry = rng.choice(words.with_synonyms)
    w = entry["word"]
    ask = rng.choice(["What is another word for {w}?", "Give me a synonym for {w}.", "What is a synonym of {w}?", "synonym for {w}", "Is there another word for {w}?"])
    return [(as_typed(rng, ask.format(w=w)), f"Another word for {w} is {entry['synonyms'][0]}.")]


def opposite(rng: random.Random, words: Words) -> Pairs:
    if rng.random() < 0.6:
        w, other = rng.choice(list(OPPOSITES.items()))
    else:
        entry = rng.choice(words.with_opposite)
        w = entry["word"]
        other = OPPOSITES.get(w, entry["opposite"])
    ask = rng.choice(["What is the opposite of {w}?", "What's the opposite of {w}?", "opposite of {w}", "Tell me the opposite of {w}.", "What is the antonym of {w}?"])
    pairs = [(as_typed(rng, ask.format(w=w)), f"The opposite of {w} is {other}.")]
    if rng.random() < 0.3:
        v, second = rng.choice(list(OPPOSITES.items()))
        pairs.append((as_typed(rng, rng.choice([f"And of {v}?", f"And the opposite of {v}?", f"What about {v}?"])), f"The opposite of {v} is {second}."))
    return pairs


def kind(rng: random.Random, words: Words) -> Pairs:
    category = rng.choice(list(CATEGORIES))
    if rng.random() < 0.5:
        member = rng.choice(CATEGORIES[category][1])
        asked = category if rng.random() < 0.5 else rng.choice(list(CATEGORIES))
        mass = category in ("food", "drink", "metal", "kind of weather", "color", "feeling", "sport")
        subject = member if mass else a(member)
        if member in CATEGORIES[asked][1]:
            said = f"Yes, {subject} is {a(asked)}."
        elif {asked, category} & {"animal"} and {asked, category} & {"bird", "fish", "insect", "reptile"}:
            said = f"Yes, {subject} is an animal." if asked == "animal" else f"No, {subject} is an animal, but not {a(asked)}."
        elif {asked, category} <= {"fruit", "vegetable", "food", "tree", "flower", "drink"}:
            return kind(rng, words)
        else:
            said = f"No, {subject} is not {a(asked)}. It is {a(category)}."
        return [(as_typed(rng, f"Is {subject} {a(asked)}?"), said)]
    entry = rng.choice(words.with_kind)
    subject = a(entry["word"]) if entry["definition"].startswith(("A ", "An ")) else entry["word"]
    return [(as_typed(rng, rng.choice([f"What kind of thing is {subject}?", f"What sort of thing is {subject}?"])), f"{subject.capitalize()} is a kind of {entry['kind'].removeprefix('kind of ').removeprefix('piece of ')}.")]


COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def following(items: list[str], at: int, count: int) -> list[str]:
    """Members of a category in the order of its list, round and round: what comes next is certain, so that an answer
    never names one twice."""
    return [items[(at + i) % len(items)] for i in range(count)]


def members(rng: random.Random, words: Words) -> Pairs:
    category = rng.choice(list(CATEGORIES))
    items = CATEGORIES[category][1]
    n = rng.choice([2, 3, 3, 4, 5, 5, 5, 6, 7, 8])
    if n > len(items):
        n = 3
    at = rng.randrange(len(items))
    chosen = following(items, at, n)
    number = rng.choice([COUNTS[n], str(n)])
    if rng.random() < 0.2:
        ask = rng.choice(["Name {c}.", "Give me an example of {c}.", "Can you name {c}?"]).format(c=a(category))
        mass = category in ("food", "drink", "metal", "kind of weather", "color", "feeling", "sport")
        one = chosen[0].capitalize() if mass else a(chosen[0]).capitalize()
        pairs = [(as_typed(rng, ask), f"{one} is {a(category)}.")]
        if rng.random() < 0.5:
            two = chosen[1].capitalize() if mass else a(chosen[1]).capitalize()
            pairs.append((as_typed(rng, rng.choice(["Another one?", "Another one, please.", "Name another.", "And one more?"])), f"{two} is {a(category)}, too."))
        return pairs
    ask = rng.choice(["List {n} {p}.", "Name {n} {p}.", "Give me {n} {p}.", "Can you list {n} {p}?", "Tell me {n} {p}.", "Write a list of {n} {p}."])
    ask = ask.format(n=number, p=plural(category))
    if rng.random() < 0.5:
        said = f"Here are {COUNTS[n]} {plural(category)}:\n" + "\n".join(f"{i}. {m}" for i, m in enumerate(chosen, 1))
    else:
        said = f"{COUNTS[n].capitalize()} {plural(category)} are {listed(chosen)}."
    pairs = [(as_typed(rng, ask), said)]
    if rng.random() < 0.25:
        word = chosen[0]
        if word in words.by_word:
            pairs.append((as_typed(rng, rng.choice(["What is the first one?", "Explain the first one.", "Tell me about the first one."])), words.by_word[word]["definition"]))
    elif rng.random() < 0.25:
        if len(items) >= n + 2:
            extra = following(items, at + n, 2)
            pairs.append((as_typed(rng, rng.choice(["Two more, please.", "Give me two more.", "Two more?"])), f"Two more {plural(category)} are {listed(extra)}."))
    return pairs


def spelling(rng: random.Random, words: Words) -> Pairs:
    w = words.pick(rng)["word"]
    kind = rng.randrange(4)
    if kind == 0:
        return [(as_typed(rng, rng.choice([f"How do you spell {w}?", f"Spell {w}.", f"Spell the word {w}."]), typos=False), "-".join(w.upper()) + ".")]
    if kind == 1:
        return [(as_typed(rng, rng.choice([f"How many letters does {w} have?", f"How many letters are in the word {w}?"]), typos=False), f'The word "{w}" has {len(w)} letters.')]
    if kind == 2:
        return [(as_typed(rng, rng.choice([f"What is the first letter of {w}?", f"Which letter does {w} start with?"]), typos=False), f'The first letter of "{w}" is {w[0].upper()}.')]
    return [(as_typed(rng, f"What is the last letter of {w}?", typos=False), f'The last letter of "{w}" is {w[-1].upper()}.')]


def sentence(rng: random.Random, words: Words) -> Pairs:
    entry = rng.choice(words.with_example)
    ask = rng.choice(["Use {w} in a sentence.", "Use the word {w} in a sentence.", "Give me a sentence with {w}.", "Make a sentence with the word {w}.", "Give me an example of {w}."])
    return [(as_typed(rng, ask.format(w=entry["word"])), entry["example"])]


SUFFIXES = "ous ish ery ify able ness ment ation ly ity ism ist er ing ful less some ward let kin ette ade age al ary ate ence ery esque hood ial ic ine ive ize ling or ory ose ship ster ty ure y wort fax bug nik wick jack shank bottom horn".split()


SEEN = ["I see.", "I see. What would you like to know?", "Interesting.", "All right.", "Good to know."]


def statement(rng: random.Random, words: Words) -> Pairs:
    """Not everything is a question."""
    return [(as_typed(rng, rng.choice(words.with_example)["example"]), rng.choice(SEEN))]


def made_up(rng: random.Random, words: Words) -> str:
    """A word that does not exist: of syllables, of an invented stem and an ending, or of halves of two real words."""
    kind = rng.random()
    if kind < 0.25:
        return invented(rng).lower() + rng.choice(SUFFIXES)
    if kind < 0.4:
        first, second = (rng.choice(words.entries)["word"] for _ in range(2))
        return first[: rng.randint(2, 4)] + second[-rng.randint(3, 5) :]
    if kind < 0.5:
        return invented(rng).lower() + rng.choice(words.nouns)
    if kind < 0.6:
        return invented(rng).lower()
    onset = "b bl br c ch cl d dr f fl g gl gr h j k l m n p pl qu r s sk sl sn sp st t tr v w z zw x".split()
    vowel = "a e i o u ee oo ai ou".split()
    coda = "b ck d ff g k l m n nd nk p r rt s sh st t x zz".split()
    return "".join(rng.choice(onset) + rng.choice(vowel) + (rng.choice(coda) if rng.random() < 0.5 else "") for _ in range(rng.randint(2, 3)))


UNKNOWN = ["I do not know the word \"{w}\". My vocabulary is small.", "Sorry, I have not learned the word \"{w}\".",
           "I don't know what \"{w}\" means. I know only common English words.", "\"{w}\" is not among the words that I know."]


def unknown(rng: random.Random, words: Words) -> Pairs:
    w = rng.choice(words.rare) if rng.random() < 0.4 else made_up(rng, words)
    if w in words.by_word or w in UNSEEN_WORDS:
        return meaning(rng, words)
    form = rng.choice(ASK[rng.choice("nnva")])
    if "{p}" in form:
        form = "What is {a}?"
    return [(typed(rng, form, w=w, a=a(w)), rng.choice(UNKNOWN).format(w=w))]


TOPICS = [(meaning, 12), (about, 4), (synonym, 1.2), (opposite, 1.5), (kind, 1.5), (members, 3), (spelling, 1.5), (sentence, 1.2), (unknown, 4.5), (statement, 0.8)]


def vocabulary(rng: random.Random, words: Words) -> Pairs:
    topic = rng.choices([t for t, _ in TOPICS], [w for _, w in TOPICS])[0]
    return topic(rng, words)
