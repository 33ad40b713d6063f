"""Distils WordNet (Debian package `wordnet-base`) to a small lexicon of common words.

One entry per word: a definition as a whole sentence, an example, the kind of thing it is, synonyms and an opposite.
WordNet's glosses are fragments ("bowed stringed instrument that ..."), so most of this file decides which article a
fragment needs and drops the ones that would read badly. How common a word is comes from WordNet itself: its tag counts
and how often its own glosses use the word.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from topics import definitions
from topics.lists import CATEGORIES, EXTRA_WORDS, OPPOSITES

WORDNET = Path("/usr/share/wordnet")
POS_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
SS_TYPE = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
DEFINITION_CHARS_MAX = 150
EXAMPLE_CHARS = range(12, 100)
PHYSICAL = (5, 6, 8, 18, 20)  # WordNet's files for animals, artifacts, body parts, people and plants
SUBSTANCE = 27

UNFIT = re.compile(
    r"sex|genital|offensive|slur|obscen|vulgar|prostitut|\brape|copulat|nazi|disparag|taboo|ethnic|negro|penis|vagina|"
    r"erotic|intercourse|homosexual|lesbian|excrement|feces|urin|anus|semen|breast|drug|cocaine|heroin|suicide|murder|"
    r"\bkill|jew|muslim|islam|hitler|racial|\brace\b|whore|nigger|naked|nude|lust|torture|drunk|slave|corpse",
    re.I,
)
UNFIT_WORDS = set("ass bitch bastard fuck shit cock dick pussy cunt damn hell crap piss tit boob fag queer dyke butt".split())


@dataclass
class Synset:
    pos: str
    lexname: int
    words: list[str]
    hypernyms: list[str]
    antonyms: list[tuple[int, str, int]]
    definition: str
    examples: list[str]


@dataclass
class Entry:
    word: str
    pos: str
    definition: str
    also: str = ""
    example: str = ""
    kind: str = ""
    synonyms: list[str] = field(default_factory=list)
    opposite: str = ""
    score: float = 0.0


class WordNet:
    """The parts of the WordNet database that the lexicon needs, and counts of its glosses' words."""

    def __init__(self, root: Path = WORDNET):
        self.synsets: dict[tuple[str, str], Synset] = {}
        self.senses: dict[tuple[str, str], list[str]] = {}
        for pos, name in POS_FILES.items():
            self._read_data(pos, root / f"data.{name}")
            self._read_index(pos, root / f"index.{name}")
        self.tags: Counter[tuple[str, str, int]] = Counter()
        for line in (root / "cntlist.rev").read_text().splitlines():
            key, sense, count = line.split()
            lemma, rest = key.split("%")
            self.tags[lemma, SS_TYPE[rest[0]], int(sense)] = int(count)
        self.used: Counter[str] = Counter()
        self.with_article: Counter[str] = Counter()
        self._count_glosses()

    def _read_data(self, pos: str, path: Path) -> None:
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith(" "):
                continue
            left, _, gloss = line.partition(" | ")
            f = left.split()
            count = int(f[3], 16)
            words = [re.sub(r"\(.*\)", "", w) for w in f[4 : 4 + 2 * count : 2]]
            at = 4 + 2 * count
            hypernyms, antonyms = [], []
            for i in range(int(f[at])):
                symbol, offset, target_pos, ends = f[at + 1 + 4 * i : at + 5 + 4 * i]
                if symbol in ("@", "@i") and target_pos == pos:
                    hypernyms.append(offset)
                if symbol == "!":
                    antonyms.append((int(ends[:2], 16), offset, int(ends[2:], 16)))
            definition, examples = split_gloss(gloss)
            self.synsets[pos, f[0]] = Synset(pos, int(f[1]), words, hypernyms, antonyms, definition, examples)

    def _read_index(self, pos: str, path: Path) -> None:
        for line in path.read_text().splitlines():
            if line.startswith(" "):
                continue
            f = line.split()
            self.senses[f[0], pos] = f[-int(f[2]) :]

    def _count_glosses(self) -> None:
        for synset in self.synsets.values():
            text = " ".join([synset.definition, *synset.examples]).lower()
            tokens = re.findall(r"[a-z]+", text)
            self.used.update(tokens)
            for first, second in zip(tokens, tokens[1:]):
                if first in ("a", "an"):
                    self.with_article[second] += 1

    def score(self, word: str) -> float:
        tagged = sum(self.tags[word, pos, s] for pos in POS_FILES for s in range(1, 6))
        return math.log1p(tagged) + math.log1p(self.used[word] + self.used[word + "s"])

    def ancestors(self, pos: str, offset: str) -> set[str]:
        seen, todo = set(), [offset]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += self.synsets[pos, at].hypernyms
        return {w.lower() for o in seen for w in self.synsets[pos, o].words}


def split_gloss(gloss: str) -> tuple[str, list[str]]:
    """The first definition of a gloss without its parentheses, and the quoted examples."""
    examples = [e.strip() for e in re.findall(r'"([^"]+)"', gloss)]
    text = re.sub(r'"[^"]*"', "", gloss)
    while re.search(r"\([^()]*\)", text):
        text = re.sub(r"\s*\([^()]*\)\s*", " ", text)
    text = re.split(r"[;:]| - ", text)[0]
    return re.sub(r"\s+", " ", text).strip(" ,.-"), examples


# --- sentences -------------------------------------------------------------------------------------------------------

DETERMINERS = set("a an the any one someone something somebody each every either all both two three several some".split())
STOPS = set(
    "that which who whose of used with in for having from made by consisting to on at designed where when as and or "
    "containing resembling formed between into usually worn given produced found through over under about without "
    "considered characterized held especially done caused based placed during toward equal than".split()
)


def head_noun(definition: str) -> str:
    """The noun that a noun phrase is about: the last word before the phrase's first joint."""
    head = ""
    for token in re.findall(r"[A-Za-z'-]+|,", definition):
        if token == "," or token.lower() in STOPS:
            if head:
                break
            continue
        head = token.lower()
    return head


def article(word: str) -> str:
    vowel = re.match(r"(?i)[aeio]|u(?!ni|se|su|ti|ri|to)|hour|honest|honou?r|heir", word)
    return "an" if vowel and not re.match(r"(?i)one\b|once\b|eu", word) else "a"


class Sentences:
    """Turns a word and a gloss into a sentence, or None where the result would read badly."""

    def __init__(self, wordnet: WordNet):
        self.wn = wordnet

    def countable(self, noun: str) -> bool:
        if noun.endswith(("ness", "ity", "ism", "ics")) and self.wn.with_article[noun] < 3:
            return False
        seen, used = self.wn.with_article[noun], self.wn.used[noun]
        return seen >= 2 and seen / max(used, 1) > 0.035 or seen >= 1 and used <= 8

    def plural(self, noun: str) -> bool:
        return noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and (noun[:-1], "n") in self.wn.senses

    def noun_phrase(self, definition: str, physical: bool) -> str | None:
        first = definition.split()[0].lower()
        if first in DETERMINERS or first.endswith("ing") and not self.countable(head_noun(definition)):
            return definition
        head = head_noun(definition)
        if (head, "n") not in self.wn.senses or head in STOPS:
            return definition if self.plural(head) else None
        if self.plural(head) or not (self.countable(head) or physical):
            return definition
        return f"{article(definition)} {definition}"

    def noun(self, word: str, synset: Synset) -> str | None:
        physical = synset.lexname in PHYSICAL and not self.plural(word)
        phrase = self.noun_phrase(synset.definition, physical)
        if phrase is None:
            return None
        counted = synset.lexname != SUBSTANCE and (self.countable(word) or physical and self.wn.with_article[word] >= 1)
        if self.plural(word):
            return f"{word.capitalize()} are {phrase}." if self.plural(head_noun(phrase)) else None
        if phrase.startswith("the ") and not counted:
            return f"{word.capitalize()} is {phrase}."
        subject = f"{article(word).capitalize()} {word}" if counted else word.capitalize()
        return f"{subject} is {phrase}."

    def sentence(self, word: str, synset: Synset) -> str | None:
        definition = synset.definition
        if not 8 <= len(definition) <= DEFINITION_CHARS_MAX or UNFIT.search(definition):
            return None
        if re.search(r"[^A-Za-z0-9 ,.'/-]", definition) or re.search(rf"\b{word}\b", definition):
            return None
        if synset.pos == "n":
            return self.noun(word, synset)
        if synset.pos == "v":
            if definition.split()[0].endswith(("ing", "ed")) or definition.startswith(("be ", "to ")):
                definition = definition.removeprefix("to ")
            return f"To {word} means to {definition}."
        return f"{word.capitalize()} means {definition}."


def tidy_example(text: str, word: str) -> str:
    text = text.replace("`", "'").replace("''", "'").strip()
    if len(text) not in EXAMPLE_CHARS or UNFIT.search(text) or not re.search(rf"(?i)\b{word[:4]}", text):
        return ""
    if len(text.split()) < 3 or re.search(r"[^A-Za-z0-9 ,.'!?-]", text) or "- " in text or "--" in text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


# --- entries ---------------------------------------------------------------------------------------------------------


class Lexicon:
    def __init__(self, wordnet: WordNet):
        self.wn = wordnet
        self.say = Sentences(wordnet)
        self.own = definitions.entries()
        self.roots: dict[str, set[str]] = defaultdict(set)
        for category, (roots, items) in CATEGORIES.items():
            for item in items:
                self.roots[item] |= set(roots)

    def choose_sense(self, word: str) -> tuple[str, int] | None:
        """The part of speech and the sense number to define: within the word's category if we listed it, else the
        most tagged one."""
        if word in self.roots:
            for number, offset in enumerate(self.wn.senses.get((word, "n"), []), 1):
                if self.roots[word] & self.wn.ancestors("n", offset):
                    return "n", number
        options = [(self.wn.tags[word, pos, 1], pos) for pos in "navr" if (word, pos) in self.wn.senses]
        if not options:
            return None
        best = max(count for count, _ in options)
        return next(pos for count, pos in options if count == best), 1

    def entry(self, word: str) -> Entry | None:
        chosen = self.choose_sense(word)
        if chosen is None:
            return self.ours(word)
        pos, number = chosen
        offsets = self.wn.senses[word, pos]
        synset = self.wn.synsets[pos, offsets[number - 1]]
        if word not in synset.words:  # a proper name
            return self.ours(word)
        sentence = self.say.sentence(word, synset)
        if sentence is None or word in self.own:
            return self.ours(word)
        entry = Entry(word, pos, sentence, score=round(self.wn.score(word), 2))
        examples = [e for e in (tidy_example(e, word) for e in synset.examples) if e]
        entry.example = examples[0] if examples else ""
        entry.kind = self.kind(synset)
        entry.synonyms = [w for w in synset.words if w != word and w.isalpha() and w.islower() and self.common(w)][:3]
        entry.opposite = self.opposite(word, synset)
        entry.also = self.other_sense(word, pos, number)
        return entry

    def ours(self, word: str) -> Entry | None:
        """The entry of a word we defined ourselves."""
        if word not in self.own:
            return None
        definition, kind, example = self.own[word]
        pos = "v" if definition.startswith("To ") else "n" if kind else "a"
        opposite = OPPOSITES.get(word, "")
        return Entry(word, pos, definition, example=example, kind=kind, opposite=opposite, score=self.wn.score(word))

    def common(self, word: str) -> bool:
        return self.wn.score(word) >= 3.0 and not UNFIT.search(word) and word not in UNFIT_WORDS

    def kind(self, synset: Synset) -> str:
        if synset.pos != "n" or not synset.hypernyms:
            return ""
        for name in self.wn.synsets["n", synset.hypernyms[0]].words:
            name = name.replace("_", " ")
            last = name.split()[-1]
            if name.islower() and self.wn.score(last) > 3.5 and name not in ("entity", "matter", "abstraction", "whole"):
                return name
        return ""

    def opposite(self, word: str, synset: Synset) -> str:
        at = synset.words.index(word) + 1
        for source, offset, target in synset.antonyms:
            if source == at and (synset.pos, offset) in self.wn.synsets:
                return self.wn.synsets[synset.pos, offset].words[target - 1].replace("_", " ")
        return ""

    def other_sense(self, word: str, pos: str, number: int) -> str:
        best, text = 2, ""
        for other in "nvar":
            for n, offset in enumerate(self.wn.senses.get((word, other), [])[:4], 1):
                count = self.wn.tags[word, other, n]
                synset = self.wn.synsets[other, offset]
                if (other, n) != (pos, number) and count > best and word in synset.words:
                    sentence = self.say.sentence(word, synset)
                    if sentence:
                        best, text = count, sentence
        return text


def build(count: int = 6000) -> dict:
    """The lexicon: `entries` to teach, and `rare`, words that the model should say it does not know."""
    wn = WordNet()
    lexicon = Lexicon(wn)
    lemmas = sorted({w for w, _ in wn.senses if w.isalpha() and w.islower() and 3 <= len(w) <= 14})
    fit = [w for w in lemmas if not UNFIT.search(w) and w not in UNFIT_WORDS]
    wanted = list(lexicon.own) + [w for w in EXTRA_WORDS if w in set(fit) and w not in lexicon.own]
    wanted += sorted(set(fit) - set(wanted), key=lambda w: -wn.score(w))
    entries: dict[str, Entry] = {}
    for word in wanted:
        if len(entries) == count:
            break
        entry = lexicon.entry(word)
        if entry:
            entries[word] = entry
    rare = [w for w in fit if w not in entries and wn.score(w) < 1.2 and len(w) >= 5]
    return {"entries": [vars(e) for e in entries.values()], "rare": rare[::4]}


def write(path: Path, count: int = 6000) -> dict:
    lexicon = build(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write(json.dumps(lexicon, ensure_ascii=False).encode())
    return lexicon


def read(path: Path) -> dict:
    return json.loads(gzip.decompress(path.read_bytes()))
