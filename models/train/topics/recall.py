"""What the user tells about themself, and questions about it later in the talk, also about what was never told."""

from __future__ import annotations

import random
from collections.abc import Callable

from .facts import KEPT, UNNAMED, Fact, age, alias, birthday, both, code, job, link, measure, moment, name, numbered, owned, place, relation, remembered_word, secret, several, somebody, taste, two
from .names import invented, person, title
from .naming import ask_name
from .scenes import doer, passed_on, scene
from .text import Pairs, as_typed
from .things import Things

Kind = Callable[[random.Random, Things], Fact]
KINDS: list[tuple[Kind, float]] = [
    (name, 9), (alias, 1.2), (taste, 3), (relation, 6), (both, 2), (two, 0.8), (several, 1.2), (place, 3), (age, 0.8), (job, 0.8), (secret, 3), (numbered, 1.2), (measure, 1.2), (remembered_word, 1.2), (moment, 2), (birthday, 0.4), (owned, 2.5), (somebody, 3), (link, 3.5), (scene, 7)]
NAMES: list[tuple[Kind, float]] = [(name, 5), (alias, 1), (relation, 4), (both, 2), (somebody, 2), (doer, 2), (passed_on, 1)]
"""Those whose values are names, and so easily confused."""


def fact(rng: random.Random, things: Things, kinds: list[tuple[Kind, float]] = KINDS) -> Fact:
    made = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
    return made(rng, things)


def facts(rng: random.Random, things: Things, count: int) -> list[Fact]:
    """Facts of which no two answer the same question; at times all of them are about names."""
    out: list[Fact] = []
    kinds = NAMES if rng.random() < 0.25 else KINDS
    while len(out) < count:
        new = fact(rng, things, kinds)
        if all(new.missing != old.missing for old in out):
            out.append(new)
    return out


LEADS = """By the way,|Before anything else:|First of all,|To start with,|Just for your information:|One thing first:|Listen,|You know,|Let me tell you something:|Here is something about me:|Guess what,|I must tell you:|For later:|It may matter that|I wanted to say that|Note:|So,|Well,|Good evening.|Hello.|Good day.|Nice to meet you.|Thanks.
Today I will tell you that|Take note:|Important:|As you may know,|I should mention that|Let me say that|Good morning.|Hi.|One more thing:|FYI:|Good to see you.
Before we go on,|Before I forget,|Before I ask:|Before you answer:|While I think of it,|As we are talking,|Since you are here,|If you need to know,|For the record,|One last thing:|Between you and me,|To be clear,|To tell the truth,|Just in case,|As I said,|Right,|Anyway,|Actually,|Oh,|Ah,|Hm,|Okay,|Now,|Look,|Remember:|Attention:|Please note:|Hear this:|A small remark:
A fact about me:|Some news:|News:|Dear Baton,|Hello Baton,|Hey you,|My dear model,|Madam,|Friend,|Okay then,|Let us start:|Some facts:|Did I mention it?|I may have said it before:|Nobody knows it, but|It is no secret that|You should know this:|I have to say:|To begin with,|To my great joy,|Please remember this:|Store this:|Memo:|Fact:|First,|Second,|Finally,|Also,|Besides,|And""".replace("\n", "|").split("|")
TAILS = """ I need some help.| Can you help me?| What do you think?| That is all.| Please keep it in mind.| I have a question.| Let us begin.| Remember it.| Nice to meet you.| I will ask you later.| Don't forget it.| Okay?| How are you?| So much for that.| Now you know.| Got it?| Is that all right?| You may need it later.| Keep it to yourself.| Isn't that nice?| What a day.| It is raining here.| Just saying.| That is how it is.| More about that later.| But never mind.| Thanks.| Cheers.| Tell nobody.| I am glad to be here.| Let me know if that is clear.""".split("|")


def framed(rng: random.Random, told: str) -> str:
    """A fact with something said before or after it, as people do."""
    kind = rng.random()
    if kind < 0.22:
        lead = rng.choice(LEADS)
        small = told.startswith(("My ", "The ", "You ", "They ", "People ", "Everybody ", "Call ", "Please ", "Our ", "We ", "It ", "There ")) and lead[-1] != "."
        return f"{lead} {told[0].lower()}{told[1:]}" if small else f"{lead} {told}"
    if kind < 0.36 and told[-1] in ".!?":
        return told + rng.choice(TAILS)
    return told


ABOUT_ME = ["What do you know about me?", "What did I tell you?", "What have I told you about myself?", "What did I tell you about me?", "Tell me what you know about me.", "What do you remember about me?", "Summarize what I told you.", "What did you learn about me?"]


def verbatim(rng: random.Random, text: str) -> str:
    """What a user tells, with little of the usual carelessness: the values must stay as they are."""
    if rng.random() < 0.12:
        text = text.rstrip(".")
    if rng.random() < 0.10 and text.startswith(("My ", "The ", "Call ", "Please ")):
        text = text[0].lower() + text[1:]
    return text


OPENERS = """By the way, |Now, |And now: |So, |And |Well, |One more question: |Back to the start: |Another question: |Just a question: |I need to know: |Help me out: |Think back. |Look above. |As I told you: |You will know it: |Let us see: |Test question: |Hm, |Okay, |Right. |Thanks. |Good. |Tell me, |Please, |Listen, |Once more: |Now to something else. |I forgot, |Sorry, |Excuse me, |Baton, |Last question: """.split("|")


def opened(rng: random.Random, form: str) -> str:
    opener = rng.choice(OPENERS)
    return opener + (form if opener.endswith(". ") or form.startswith("I ") else form[0].lower() + form[1:])


def ask(rng: random.Random, about: Fact) -> str:
    """A question with names and numbers as they were told; forms without any may be typed carelessly."""
    form = rng.choice(about.asks)
    if rng.random() < 0.08:
        return verbatim(rng, opened(rng, form))
    plain = form[:-1].replace("I ", "i ").islower() or form[1:].replace("I ", "i ").islower()
    return as_typed(rng, form) if plain else verbatim(rng, form)


def answer(rng: random.Random, about: Fact) -> str:
    return about.said if rng.random() < 0.93 else f"{about.short[0].upper()}{about.short[1:]}." if about.short[0].islower() and " " in about.short else f"{about.short}."


def joined(rng: random.Random, told: list[Fact]) -> str:
    """Several facts in one message, as sentences or as one."""
    texts = [f.told if f.told[-1:] in ".!?" else f"{f.told}." for f in told]
    if rng.random() < 0.5:
        return " ".join(texts)
    clauses = [text.rstrip(".") for text in texts]
    small = [c[0].lower() + c[1:] if c.split()[0] in STARTS else c for c in clauses[1:]]
    link = rng.choice([" and ", ", and ", ", "])
    return clauses[0] + "".join(link + c.removeprefix("I ") if clauses[0].startswith("I ") and rng.random() < 0.3 else link + c for c in small) + "."


STARTS = {"My", "The", "Our", "We", "It", "There", "They", "People", "Everybody", "Call", "Please", "You", "Remember", "Note", "Home", "Just"}


def tell(rng: random.Random, told: list[Fact]) -> Pairs:
    """The facts over one or several turns."""
    if len(told) > 1 and rng.random() < 0.4:
        said = rng.choice([rng.choice(told[-1].acks), rng.choice(KEPT), rng.choice(told[0].acks)])
        return [(verbatim(rng, joined(rng, told)), said)]
    return [(verbatim(rng, framed(rng, f.told)), rng.choice(f.acks)) for f in told]


CORRECTIONS = """No, it is {v}.|No, it's {v}.|No, {v}.|Sorry, I meant {v}.|I meant {v}.|Sorry, {v}.|Oh, it should be {v}.|Correction: {v}.|Actually, it is {v}.|I made a mistake, it is {v}.|{v}, not {old}.|Not {old} but {v}.|It is not {old}, it is {v}.|That was wrong, it is {v}.|That has changed, now it is {v}.|Forget that, it is {v}.|Scratch that: {v}.|Make that {v}.|Excuse me, {v}.
Wrong, it is {v}.|I mixed it up, {v} is right.|{v} is right, {old} was wrong.|{old} is wrong. It is {v}.|As of today it is {v}.|I was wrong, {v}.|Better: {v}.|It used to be {old}, but now it is {v}.|Let me correct that: {v}.|Hm, not {old}. {v}.|Did I say {old}? It is {v}.|I take that back, it is {v}.|Please change that to {v}.|Please use {v} instead of {old}.|Replace {old} by {v}.""".replace("\n", "|").split("|")
RENAMED = ["Actually, my name is {v}.", "Call me {v} instead.", "I have changed my name to {v}.", "Wrong, I am {v}.", "Correction: my name is {v}.", "Please call me {v} from now on.", "My name is not {old}, it is {v}.", "I am not {old}, I am {v}.", "Forget {old}, call me {v}.", "Today I am {v}."]
CORRECTED = ["I have corrected that.", "All right, {v}.", "Thank you, I will remember {v}.", "Sorry. I have noted {v}.", "Understood, {v}.", "Thank you for the correction.", "I will remember that."]


def correct(rng: random.Random, things: Things, exchange: Callable[[random.Random], Pairs]) -> Pairs:
    """Something that is corrected later: the last value counts."""
    told = next(f for f in iter(lambda: fact(rng, things), None) if f.again)
    value = told.again(rng)
    forms = RENAMED if told.missing == UNNAMED and rng.random() < 0.5 else CORRECTIONS
    change, said = rng.choice(forms).format(v=value, old=told.short), rng.choice(CORRECTED).format(v=value)
    between = exchange(rng) if rng.random() < 0.3 else []
    return [(verbatim(rng, told.told), rng.choice(told.acks)), (change[0].upper() + change[1:] if change[0] != value[0] else change, said), *between, (ask(rng, told), value.join(told.said.rsplit(told.short, 1)))]


def at_once(rng: random.Random, things: Things) -> Pairs:
    """A fact and the question about it in one message, or a question about nothing that was told."""
    if rng.random() < 0.02:
        return [(as_typed(rng, rng.choice(ABOUT_ME)), "You have not told me anything yet.")]
    if rng.random() < 0.35:
        never = fact(rng, things)
        return [(ask(rng, never), never.missing)]
    told = facts(rng, things, rng.choice([1, 1, 2, 3]))
    about = rng.choice(told)
    return [(f"{joined(rng, told)} {rng.choice(about.asks)}", answer(rng, about))]


def remembered(rng: random.Random, things: Things, exchange: Callable[[random.Random], Pairs]) -> Pairs:
    """Facts, other things, and questions about the facts."""
    if rng.random() < 0.08:
        return correct(rng, things, exchange)
    known = facts(rng, things, rng.choice([1, 1, 1, 2, 2, 3, 4, 6]))
    told = known[: max(1, len(known) - (rng.random() < 0.3 and len(known) > 1))]
    others = [exchange(rng) for _ in range(rng.choice([0, 0, 0, 1, 1, 1, 2, 2, 3, 5]))]
    pairs = mingled(rng, tell(rng, told), others)
    for about in rng.sample(known, min(len(known), rng.choice([1, 1, 2, 3]))):
        pairs.append((ask(rng, about), answer(rng, about) if about in told else about.missing))
    if rng.random() < 0.08 and all(f.missing != UNNAMED for f in known):
        pairs.append((as_typed(rng, ask_name(rng)), UNNAMED))
    if rng.random() < 0.06:
        pairs.append((as_typed(rng, rng.choice(ABOUT_ME)), " ".join(f.said for f in told)))
    return pairs


def mingled(rng: random.Random, tells: Pairs, others: list[Pairs]) -> Pairs:
    """What is told, and other things: mostly after it, at times before or between, or in the same message."""
    kind = rng.random()
    if kind < 0.12 and others and tells[-1][0][-1] in ".!":
        (asked, said), *rest = others[0]
        return [*tells[:-1], (f"{tells[-1][0]} {asked}", said), *rest, *(pair for pairs in others[1:] for pair in pairs)]
    if kind < 0.70:
        return [*tells, *(pair for pairs in others for pair in pairs)]
    parts = [[pair] for pair in tells] + others
    order = sorted(range(len(parts)), key=lambda i: (rng.random(), i))
    return [pair for i in order for pair in parts[i]]


REPEATS = [
    ("Say {t}.", "{t}"), ("Say: {t}", "{t}"), ("Repeat after me: {t}", "{t}"), ("Repeat: {t}", "{t}"), ("Please say {t}.", "{t}"), ("Write the following: {t}", "{t}"), ("Copy this: {t}", "{t}"), ("Type {t}.", "{t}"), ('Write "{t}".', "{t}"),
    ("Say hello to {t}.", "Hello, {t}!"), ("Greet {t}.", "Hello, {t}!"), ("Say goodbye to {t}.", "Goodbye, {t}!"), ("Wish {t} a happy birthday.", "Happy birthday, {t}!"), ("Thank {t} for me.", "Thank you, {t}!"), ("Welcome {t}.", "Welcome, {t}!"),
    ("Wish {t} good luck.", "Good luck, {t}!"), ("Say good night to {t}.", "Good night, {t}!"), ("Congratulate {t}.", "Congratulations, {t}!"), ("Say sorry to {t}.", "I am sorry, {t}."),
]


def repeat(rng: random.Random, things: Things) -> Pairs:
    """Says what it is told to say, letter by letter."""
    form, said = rng.choice(REPEATS)
    if said != "{t}":
        text = person(rng)
    else:
        text = rng.choice([person(rng), " ".join(rng.sample(things.nouns, rng.randint(1, 6))), code(rng), " ".join(invented(rng) for _ in range(rng.randint(1, 4))), title(rng, things.nouns)])
    return [(form.replace("{t}", text), said.replace("{t}", text))]
