"""Who did what, where, when, with whom: sentences with several details, of which one is asked for.

The same sentence is asked in many ways, so that a question has to be understood by what it leaves out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .facts import Fact
from .lists import CATEGORIES, DAYS, MONTHS
from .names import person, town
from .text import a, plural
from .things import PERSONS, Things
from .verbs import gerund, participle, past, third

ON_THINGS = """repair paint buy sell find lose clean wash break carry hide bring keep build draw steal photograph store park bury burn order rent wrap polish sharpen weigh test open close lock sew bake cook feed collect drop forget leave cover decorate design inherit invent pick plant restore return ship
show taste throw unpack wear win mend cut hang choose see guard watch tie move lift shake tear hold exhibit assemble insure inspect measure admire borrow discover rescue fix test examine dye describe film scan label count water trim replace book present""".split()
GIVING = "give lend sell send show bring mail hand return promise leave pass rent donate".split()
GETTING = "get buy borrow inherit receive rent steal order learn hear win".split()
DOING = """play chess|play cards|play the {tool}|play in the {thing} band|study {subject}|teach {subject}|sing in the choir|learn to swim|learn {subject}|learn to dance|run a {thing} shop|own a {thing} store|work in a {thing} factory|work as {ajob}|sell {things}|collect {things}|raise {things}|grow {things}|swim|dance|camp|fish|ski|sleep
train for the marathon|wait for the {thing}|look for {things}|go to school|go shopping|spend the summer|spend the holidays|spend the night|celebrate the wedding|celebrate New Year|take the exam|start the journey|change trains|have lunch|have a garden|have an office|meet the {thing} dealer|see the {thing} show|read about {things}|write a book about {things}
get a haircut|get lost|get engaged|fall asleep|fall in love|retire|settle|hike|ride a {thing}|drive a {thing}|fly a {thing}|sit on the {thing}|stand at the {thing}|park the {thing}|speak about {things}|argue about {things}|dream of {things}|lecture on {subject}|keep {things}|run a marathon|spend my childhood|spend my youth|celebrate my birthday|meet my wife|do my homework|wash my hair|read my mail|buy my bread|see my doctor|build a house|rent a room|rent a {thing}""".replace("\n", "|").split("|")
SUBJECTS = "music history Latin physics chemistry law medicine art French botany cooking geology drama dancing fencing pottery design astronomy Greek economics algebra painting".split()
TIMES = "yesterday|last week|last month|last autumn|last summer|last winter|two years ago|a week ago|this morning|on {day}|on {day}|on {day} evening|in {month}|in {month}|at {h}:{m:02d}|at {h}:{m:02d}|on {n} {month}|in {year}|at {h} o'clock|at noon|at midnight|after the war|before breakfast|{n} days ago|at Easter|on my birthday".split("|")
COMING = "tomorrow|next week|next month|next year|next summer|in {n} days|on {day}|on {day}|in {month}|at {h}:{m:02d}|on {n} {month}|tonight|after lunch|at noon".split("|")
MINE = {"I": "you", "we": "you", "my": "your", "our": "your", "me": "you", "us": "you", "am": "are"}


def yours(text: str) -> str:
    """The user's words, said to the user."""
    return " ".join(MINE.get(word, word) for word in text.split(" "))


def sentence(text: str, end: str = ".") -> str:
    return text[0].upper() + text[1:] + end


@dataclass(frozen=True)
class Clause:
    """A subject, what it does, and to what; the tense is past, present, now, or a verb such as will."""

    subject: str
    verb: str
    rest: str
    tense: str

    def finite(self, subject: str) -> str:
        """The verb as it follows a subject."""
        plain = subject in ("I", "we", "you", "my parents", "your parents")
        match self.tense:
            case "past":
                return past(self.verb)
            case "present":
                return self.verb if plain else third(self.verb)
            case "now":
                return f"{'am' if subject == 'I' else 'are' if plain else 'is'} {gerund(self.verb)}"
            case modal:
                return f"{modal} {self.verb}"

    def statement(self, subject: str) -> str:
        return " ".join(filter(None, [subject, self.finite(subject), self.rest]))

    def inverted(self, rest: str) -> str:
        """As it follows where, when or whom."""
        head, main = self.finite(self.subject).split(" ") if self.tense not in ("past", "present") else (self.auxiliary(), self.verb)
        return " ".join(filter(None, [head, self.subject, main, rest]))

    def auxiliary(self) -> str:
        return "did" if self.tense == "past" else "do" if self.subject in ("I", "we", "my parents") else "does"

    def told_back(self) -> str:
        """The clause said to the user."""
        return " ".join(filter(None, [yours(self.subject), self.finite(yours(self.subject)), yours(self.rest)]))


def clause(rng: random.Random, things: Things, verbs: list[str]) -> Clause:
    """Somebody does something, mostly with a thing."""
    tense = rng.choices(["past", "present", "now", "will", "can", "must", "should"], [5, 2, 1, 0.8, 0.4, 0.2, 0.2])[0]
    my_one = f"my {things.someone(rng)}"
    subject = rng.choices(["I", "we", my_one, person(rng), f"my {rng.choice(PERSONS)} {person(rng)}", "my parents"], [6, 1.5, 1.5, 2.5, 1, 0.4])[0]
    if verbs is DOING:
        verb, _, rest = activity(rng, things).partition(" ")
        return Clause(subject, verb, rest, tense)
    thing = things.thing(rng)
    return Clause(subject, rng.choice(verbs), rng.choice([f"my {thing}", f"my {thing}", f"the {thing}", f"our {thing}", a(thing)]), tense)


def activity(rng: random.Random, things: Things) -> str:
    thing = things.thing(rng)
    return rng.choice(DOING).format(thing=thing, things=plural(thing), tool=rng.choice(CATEGORIES["musical instrument"][1]), subject=rng.choice(SUBJECTS), ajob=a(rng.choice(CATEGORIES["job"][1])))


def moment(rng: random.Random, tense: str) -> str:
    return rng.choice(TIMES if tense == "past" else COMING).format(day=rng.choice(DAYS), month=rng.choice(MONTHS), h=rng.randint(1, 23), m=rng.randint(0, 59), n=rng.randint(2, 28), year=rng.randint(1900, 2025))


def detail(rng: random.Random, kind: str, tense: str, things: Things) -> str:
    """One more part of a sentence; what follows a `|` is a short answer."""
    match kind:
        case "where":
            return f"in |{town(rng)}" if rng.random() < 0.7 else f"{rng.choice(BY)} the {things.thing(rng)}"
        case "when":
            return moment(rng, tense)
        case "with":
            return f"with |{rng.choice([person(rng)] * 3 + ['my ' + things.someone(rng)])}"
        case _:
            return f"for |{rng.randint(2, 999)} {rng.choice(['dollars', 'euros', 'pounds', 'francs', 'coins'])}"


INDIRECT = """Do you remember {c}?|Do you know {c}?|Tell me {c}.|Can you tell me {c}?|Do you still know {c}?|I forgot {c}.|Remind me {c}.|Please say {c}.|Did I say {c}?|Did I tell you {c}?|Do you recall {c}?|I wonder {c}.|Could you repeat {c}?|Have you noted {c}?|Try to remember {c}.|Now tell me {c}.|And {c}?|Quick: {c}?|My question is {c}.|I want to know {c}.|I would like to know {c}.|Let me know {c}.|Say {c}.|Once again: {c}?""".split("|")
BY = "at behind near in under beside opposite outside".split()
WORDS = {"where": ["where"], "when": ["when"], "with": ["with whom", "who ... with"], "for": ["for how much", "for what price"]}


def questions(rng: random.Random, about: Clause, kind: str) -> list[str]:
    """Ways to ask for a detail, straight and wrapped."""
    word, _, back = rng.choice(WORDS[kind]).partition(" ... ")
    back = back and f" {back}"
    straight = sentence(f"{word} {about.inverted(about.rest)}{back}", "?")
    wrapped = rng.choice(INDIRECT).format(c=f"{word} {about.statement(about.subject)}{back}")
    return [straight, straight, wrapped]


def told(rng: random.Random, base: str, details: list[str]) -> str:
    """A statement with its details, the first of which may lead."""
    parts = [d.replace("|", "") for d in details]
    if parts and rng.random() < 0.15:
        lead, *rest = parts
        return sentence(" ".join([f"{lead}{rng.choice([' ', ', '])}{base}", *rest]))
    return sentence(" ".join([base, *parts]))


def scene(rng: random.Random, things: Things) -> Fact:
    """A clause with one to three details; a detail, the doer or the thing is asked for."""
    kind = rng.random()
    if kind < 0.25:
        return doer(rng, things)
    if kind < 0.38:
        return passed_on(rng, things)
    if kind < 0.44:
        return given(rng, things)
    if kind < 0.52:
        return moved(rng, things)
    about = clause(rng, things, DOING if rng.random() < 0.45 else ON_THINGS)
    holes = rng.sample(["where", "when", "with"] + (["for"] if about.verb in ("buy", "sell", "rent", "repair", "order") else []), rng.choice([1, 1, 2, 2, 3]))
    details = {hole: detail(rng, hole, about.tense, things) for hole in holes}
    wanted = rng.choice(holes)
    value = yours(details[wanted].replace("|", ""))
    missing = f"You have not told me {WORDS[wanted][0]} {about.told_back()}."
    return Fact(told(rng, about.statement(about.subject), list(details.values())), questions(rng, about, wanted), sentence(f"{about.told_back()} {value}"), yours(details[wanted].split("|")[-1]), missing)


def doer(rng: random.Random, things: Things) -> Fact:
    """Somebody who has done something: who was it, or what?"""
    n = person(rng)
    made = clause(rng, things, DOING if rng.random() < 0.35 else ON_THINGS)
    about = Clause(n, made.verb, made.rest, made.tense)
    base = about.statement(n)
    if about.tense == "past" and made.rest.startswith(("my ", "the ", "our ")) and made.verb in ON_THINGS and rng.random() < 0.3:
        base = f"{made.rest} was {participle(made.verb)} by {n}"
    elif rng.random() < 0.3:
        base = about.statement(f"my {things.someone(rng)} {n}")
    more = [detail(rng, rng.choice(["where", "when"]), about.tense, things)] if rng.random() < 0.5 else []
    doing = about.statement("who")
    asks = [sentence(doing, "?"), sentence(doing, "?"), sentence(f"who was it that {about.finite('who')} {about.rest}".rstrip(), "?"), rng.choice(INDIRECT).format(c=doing)]
    said = " ".join(filter(None, [n, about.finite(n), yours(about.rest)]))
    text = told(rng, base, more)
    text = n + text[len(n) :] if text[: len(n)].lower() == n.lower() else text
    return Fact(text, asks, f"{said}.", n, f"You have not told me who {about.finite('who')} {yours(about.rest)}.".replace(" .", "."))


def passed_on(rng: random.Random, things: Things) -> Fact:
    """A thing that went from one to another."""
    to = rng.random() < 0.55
    made = clause(rng, things, GIVING if to else GETTING)
    about = Clause(made.subject, made.verb, made.rest if made.rest.startswith(("my ", "our ")) else f"the {things.thing(rng)}", made.tense)
    n, link = rng.choice([person(rng)] * 4 + [f"my {things.someone(rng)} {person(rng)}"]), "to" if to else "from"
    more = [detail(rng, rng.choice(["where", "when"]), about.tense, things)] if rng.random() < 0.35 else []
    asks = [sentence(f"who {about.inverted(about.rest)} {link}", "?"), sentence(f"{link} whom {about.inverted(about.rest)}", "?"), rng.choice(INDIRECT).format(c=f"who {about.statement(about.subject)} {link}")]
    if about.tense == "past" and about.verb in ("give", "lend", "sell", "hand", "bring"):
        asks.append(f"Who has {about.rest} now?")
    return Fact(told(rng, about.statement(about.subject), [f"{link} |{n}", *more]), asks, sentence(f"{about.told_back()} {link} {yours(n)}"), yours(n), f"You have not told me who {about.told_back()} {link}.")


def given(rng: random.Random, things: Things) -> Fact:
    """What the user was given, and by whom."""
    n, verb, thing = person(rng), rng.choice("give lend sell send show bring hand promise".split()), things.thing(rng)
    who = n if rng.random() < 0.6 else f"my {things.someone(rng)} {n}"
    base = rng.choice([f"{who} {past(verb)} me the {thing}", f"{who} {past(verb)} the {thing} to me", f"the {thing} was {participle(verb)} to me by {who}", f"I was {participle(verb)} the {thing} by {who}", f"it was {who} who {past(verb)} me the {thing}"])
    text = told(rng, base, [detail(rng, rng.choice(["where", "when"]), "past", things)] if rng.random() < 0.4 else [])
    text = n + text[len(n) :] if base.startswith(n) and text[: len(n)].lower() == n.lower() else text
    asks = [f"Who {past(verb)} me the {thing}?", f"Who {past(verb)} the {thing} to me?", f"By whom was the {thing} {participle(verb)} to me?", rng.choice(INDIRECT).format(c=f"who {past(verb)} me the {thing}"), f"From whom do I have the {thing}?"]
    return Fact(text, asks, f"{n} {past(verb)} you the {thing}.", n, f"You have not told me who {past(verb)} you the {thing}.")


def moved(rng: random.Random, things: Things) -> Fact:
    """Who went where."""
    made, place = clause(rng, things, GOING), town(rng)
    about = Clause(made.subject, made.verb, "", made.tense)
    more = rng.choice([[], [], [moment(rng, about.tense)], [f"with {rng.choice([person(rng), 'my ' + things.someone(rng), 'two ' + plural(things.thing(rng)), 'a ' + things.noun(rng)])}"], [f"by {rng.choice('train bus car ship plane bike ferry'.split())}"]])
    asks = [sentence(f"where {about.inverted('')}{to}", "?") for to in ("", "", " to")] + [rng.choice(INDIRECT).format(c=f"where {about.statement(about.subject)}"), sentence(f"to which town {about.inverted('')}", "?")]
    return Fact(told(rng, about.statement(about.subject), [f"to {place}", *more]), asks, sentence(f"{about.told_back()} to {place}"), place, f"You have not told me where {about.told_back()}.")


GOING = "move travel fly drive walk sail go return cycle run ride emigrate march swim".split()
