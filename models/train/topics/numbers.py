"""Small sums: the four operations, comparing, counting, parity and word problems."""

from __future__ import annotations

import random

from held_out import held_out_sum

from .lists import DAYS, MONTHS
from .names import first_name
from .text import Pairs, as_typed, listed

WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SIGNS = {"add": ["+", "plus"], "sub": ["-", "minus"], "mul": ["times", "x", "*", "multiplied by"], "div": ["/", "divided by"]}
THINGS = "apples books coins cards eggs pens marbles oranges stamps cookies balls flowers shells pencils stones tickets keys cups stickers plums".split()


def in_words(n: int) -> str:
    if n < 20:
        return WORDS[n]
    if n == 100:
        return "one hundred"
    return TENS[n // 10] + (f"-{WORDS[n % 10]}" if n % 10 else "")


def two_numbers(rng: random.Random) -> tuple[int, int]:
    top, top2 = rng.choices([(20, 20), (100, 100), (999, 999), (999, 99)], [25, 20, 45, 10])[0]
    x, y = rng.randint(0, top), rng.randint(0, top2)
    return (x, y) if rng.random() < 0.5 else (y, x)


def operands(rng: random.Random, op: str) -> tuple[int, int, int]:
    """Two numbers and the result. Most sums stay small, so that the common ones are certain."""
    if op == "add":
        x, y = two_numbers(rng)
        return x, y, x + y
    if op == "sub":
        x, y = sorted(two_numbers(rng), reverse=rng.random() < 0.9)
        return x, y, x - y
    if op == "mul":
        top = 12 if rng.random() < 0.8 else 20
        x, y = rng.randint(0, top), rng.randint(0, top)
        return x, y, x * y
    y, z = rng.randint(1, 12), rng.randint(0, 12)
    return y * z, y, z


def fresh(rng: random.Random, op: str) -> tuple[int, int, int]:
    while True:
        x, y, z = operands(rng, op)
        if not held_out_sum(op, x, y):
            return x, y, z


NAMES_OF = {"add": "plus", "sub": "minus", "mul": "times", "div": "divided by"}


def answer(rng: random.Random, op: str, x: int, y: int, z: int) -> str:
    sign = {"add": "+", "sub": "-", "mul": "×", "div": "÷"}[op]
    forms = [f"{x} {NAMES_OF[op]} {y} is {z}.", f"{x} {NAMES_OF[op]} {y} is {z}.", f"{x} {sign} {y} = {z}."]
    return rng.choice(forms)


REQUESTS = """Figure out {e}.|Solve {e}.|Solve {e} for me.|Evaluate {e}.|Determine {e}.|Find {e}.|Tell me {e}.|I need {e}.|Help me with {e}.|Do this sum: {e}|My homework: {e}|What would {e} be?|Give me the result of {e}.|Can you calculate {e}?|What result has {e}?|Please do {e} for me.|I want to know {e}.|How about {e}?
Could you compute {e} for me?|{e} makes?|{e} is?|What is the result of {e}?|What number is {e}?|Do you know {e}?|Tell me how much {e} is.|The answer to {e}?|quick, {e}|Reckon {e}.|Let us do {e}.|Can you do {e} in your head?|Calculate this for me: {e}|Say what {e} is.|{e} equals what?|I have to do {e}.""".replace("\n", "|").split("|")


def question(rng: random.Random, op: str, x: int, y: int) -> str:
    sign = rng.choice(SIGNS[op])
    gap = "" if sign in "+-*/x" and rng.random() < 0.3 else " "
    plain = f"{x}{gap}{sign}{gap}{y}"
    if rng.random() < 0.08 and x <= 100 and y <= 100:
        plain = f"{in_words(x)} {NAMES_OF[op]} {in_words(y)}"
    forms = [f"What is {plain}?", f"What is {plain}?", f"{plain}", f"{plain} = ?", f"How much is {plain}?", f"Calculate {plain}.",
             f"What's {plain}?", f"Can you tell me what {plain} is?", f"{plain}?", f"Compute {plain}.", f"What does {plain} equal?"]
    if rng.random() < 0.2:
        return rng.choice(REQUESTS).format(e=plain)
    special = {
        "add": [f"Add {x} and {y}.", f"What is the sum of {x} and {y}?", f"What do {x} and {y} make?", f"{x} and {y} make?", f"What do you get if you add {y} to {x}?", f"I add {x} and {y}. What is the result?"],
        "sub": [f"Subtract {y} from {x}.", f"What is left of {x} if I take away {y}?" if x >= y else f"What is {x} less {y}?", f"What is the difference between {x} and {y}?" if x >= y else f"Take {y} from {x}."],
        "mul": [f"Multiply {x} by {y}.", f"What is the product of {x} and {y}?"],
        "div": [f"Divide {x} by {y}."],
    }[op]
    return rng.choice(forms + special)


def sums(rng: random.Random) -> Pairs:
    op = rng.choices(["add", "sub", "mul", "div"], [4, 3, 4, 1])[0]
    x, y, z = fresh(rng, op)
    pairs = [(as_typed(rng, question(rng, op, x, y), typos=False), answer(rng, op, x, y, z))]
    while rng.random() < 0.35 and 0 <= z <= 100 and len(pairs) < 4:
        op = rng.choice(["add", "sub", "mul"])
        k = rng.randint(1, 10) if op == "mul" else rng.randint(0, 30)
        if op == "mul" and z > 20 or op == "sub" and k > z or held_out_sum(op, z, k):
            break
        result = {"add": z + k, "sub": z - k, "mul": z * k}[op]
        how = {"add": [f"And plus {k}?", f"Now add {k}.", f"plus {k}", f"And {k} more?", f"Add {k} to that."],
               "sub": [f"And minus {k}?", f"Now subtract {k}.", f"minus {k}", f"Take away {k}.", f"Subtract {k} from that."],
               "mul": [f"And times {k}?", f"Now multiply it by {k}.", f"times {k}", f"Multiply that by {k}.", f"and times {in_words(k)}?"]}[op]
        pairs.append((as_typed(rng, rng.choice(how), typos=False), f"{z} {NAMES_OF[op]} {k} is {result}."))
        z = result
    return pairs


def long_sum(rng: random.Random) -> Pairs:
    """Three numbers, added step by step."""
    while True:
        x, y, z = (rng.randint(1, rng.choice([20, 100, 400])) for _ in range(3))
        if not any(held_out_sum("add", *pair) for pair in ((x, y), (y, z), (x + y, z))):
            break
    ask = rng.choice([f"What is {x} + {y} + {z}?", f"{x} + {y} + {z}", f"{x}+{y}+{z} = ?", f"What is {x} plus {y} plus {z}?", f"Add {x}, {y} and {z}.", f"What is the sum of {x}, {y} and {z}?"])
    return [(as_typed(rng, ask, typos=False), f"{x} + {y} = {x + y}, and {x + y} + {z} = {x + y + z}.")]


def compare(rng: random.Random) -> Pairs:
    x, y = two_numbers(rng)
    if x == y:
        return [(as_typed(rng, f"Which is larger, {x} or {y}?"), f"Neither: they are both {x}.")]
    big, small = max(x, y), min(x, y)
    kind = rng.randrange(4)
    if kind == 0:
        return [(as_typed(rng, rng.choice([f"Which is larger, {x} or {y}?", f"What is bigger, {x} or {y}?", f"Which number is greater: {x} or {y}?"])),
                 f"{big} is larger than {small}.")]
    if kind == 1:
        return [(as_typed(rng, rng.choice([f"Which is smaller, {x} or {y}?", f"Which number is less, {x} or {y}?"])), f"{small} is smaller than {big}.")]
    word = rng.choice(["larger", "greater", "bigger"])
    verdict = "Yes" if x > y else "No"
    return [(as_typed(rng, f"Is {x} {word} than {y}?"), f"{verdict}, {x} is {'larger' if x > y else 'smaller'} than {y}.")]


def parity(rng: random.Random) -> Pairs:
    n = rng.randint(0, 100)
    even = n % 2 == 0
    if rng.random() < 0.5:
        return [(as_typed(rng, f"Is {n} even or odd?"), f"{n} is {'even' if even else 'odd'}.")]
    ask = rng.choice(["even", "odd"])
    yes = (ask == "even") == even
    return [(as_typed(rng, rng.choice([f"Is {n} {ask}?", f"Is {n} an {ask} number?"])),
             f"{'Yes' if yes else 'No'}, {n} is {'even' if even else 'odd'}.")]


def counting(rng: random.Random) -> Pairs:
    kind = rng.randrange(6)
    if kind == 0:
        low = rng.choice([1, 1, 1, rng.randint(0, 60)])
        high = low + rng.randint(4, 19)
        return [(as_typed(rng, rng.choice([f"Count from {low} to {high}.", f"Can you count from {low} to {high}?"])), ", ".join(map(str, range(low, high + 1))) + ".")]
    if kind == 1:
        high = rng.randint(5, 20)
        return [(as_typed(rng, f"Count to {high}."), ", ".join(map(str, range(1, high + 1))) + ".")]
    if kind == 2:
        high = rng.randint(5, 20)
        return [(as_typed(rng, rng.choice([f"Count down from {high}.", f"Count backwards from {high}."])), ", ".join(map(str, range(high, -1, -1))) + ".")]
    n = rng.randint(1, 99)
    if kind == 3:
        return [(as_typed(rng, rng.choice([f"What comes after {n}?", f"Which number comes after {n}?", f"What is the next number after {n}?"])), f"{n + 1} comes after {n}.")]
    if kind == 4:
        return [(as_typed(rng, rng.choice([f"What comes before {n}?", f"Which number comes before {n}?"])), f"{n - 1} comes before {n}.")]
    k = rng.randint(2, 10)
    return [(as_typed(rng, rng.choice([f"Count by {in_words(k)}s.", f"Give me the multiples of {k}.", f"What are the first ten multiples of {k}?"])), ", ".join(str(k * i) for i in range(1, 11)) + ".")]


def table(rng: random.Random) -> Pairs:
    k = rng.randint(1, 12)
    lines = "\n".join(f"{k} × {i} = {k * i}" for i in range(1, 11))
    ask = rng.choice([f"Show me the {k} times table.", f"Write the multiplication table of {k}.", f"What is the {k} times table?", f"times table of {k}"])
    return [(as_typed(rng, ask), f"Here is the {k} times table:\n{lines}")]


def spelled(rng: random.Random) -> Pairs:
    n = rng.randint(0, 100)
    if rng.random() < 0.5:
        return [(as_typed(rng, rng.choice([f"Write {n} in words.", f"How do you write {n} in words?", f"How do you spell {n}?"])), f"{n} in words is {in_words(n)}.")]
    return [(as_typed(rng, rng.choice([f"Write {in_words(n)} as a number.", f"What number is {in_words(n)}?"]), typos=False), f"{in_words(n).capitalize()} is {n}.")]


def half_double(rng: random.Random) -> Pairs:
    n = rng.randint(1, 50)
    if rng.random() < 0.5:
        return [(as_typed(rng, rng.choice([f"What is half of {2 * n}?", f"Halve {2 * n}."])), f"Half of {2 * n} is {n}.")]
    return [(as_typed(rng, rng.choice([f"Double {n}.", f"What is twice {n}?", f"What is the double of {n}?"])), f"Twice {n} is {2 * n}.")]


def square(rng: random.Random) -> Pairs:
    n = rng.randint(0, 20)
    return [(as_typed(rng, rng.choice([f"What is {n} squared?", f"What is the square of {n}?"])), f"{n} squared is {n * n}.")]


def order(rng: random.Random) -> Pairs:
    values = rng.sample(range(0, 100), rng.randint(3, 5))
    kind = rng.randrange(3)
    text = ", ".join(map(str, values))
    if kind == 0:
        return [(as_typed(rng, rng.choice([f"Sort these numbers: {text}.", f"Put {text} in order."])), ", ".join(map(str, sorted(values))) + ".")]
    if kind == 1:
        return [(as_typed(rng, f"What is the largest of {text}?"), f"The largest is {max(values)}.")]
    return [(as_typed(rng, f"What is the smallest of {text}?"), f"The smallest is {min(values)}.")]


def word_problem(rng: random.Random) -> Pairs:
    who, friend = first_name(rng), first_name(rng)
    thing = rng.choice(THINGS)
    kind = rng.randrange(5)
    if kind == 0:
        x, y, z = fresh(rng, "add")
        ask = f"{who} has {x} {thing} and gets {y} more. How many {thing} does {who} have now?"
        say = f"{who} has {x} + {y} = {z} {thing}."
    elif kind == 1:
        y, x = sorted(fresh(rng, "sub")[:2])
        ask = f"{who} has {x} {thing} and gives {y} to {friend}. How many {thing} does {who} have left?"
        say = f"{who} has {x} - {y} = {x - y} {thing} left."
    elif kind == 2:
        x, y = rng.randint(2, 12), rng.randint(2, 12)
        ask = f"There are {x} boxes with {y} {thing} in each. How many {thing} are there in all?"
        say = f"There are {x} × {y} = {x * y} {thing}."
    elif kind == 3:
        y, z = rng.randint(2, 10), rng.randint(2, 10)
        ask = f"{who} shares {y * z} {thing} equally among {y} friends. How many does each friend get?"
        say = f"Each friend gets {y * z} ÷ {y} = {z} {thing}."
    else:
        x, y, _ = fresh(rng, "add")
        ask = f"{who} has {x} {thing} and {friend} has {y}. How many {thing} do they have together?"
        say = f"Together they have {x} + {y} = {x + y} {thing}."
    return [(ask if rng.random() < 0.7 else ask.rstrip("?"), say)]


def calendar_sum(rng: random.Random) -> Pairs:
    names, noun = (DAYS, "day") if rng.random() < 0.6 else (MONTHS, "month")
    at, k = rng.randrange(len(names)), rng.randint(1, 4)
    then = names[(at + k) % len(names)]
    s = "s" if k > 1 else ""
    if noun == "day" and rng.random() < 0.4:
        return [(as_typed(rng, f"If today is {names[at]}, what day is it in {k} day{s}?"), f"In {k} day{s} it is {then}.")]
    return [(as_typed(rng, f"Which {noun} is {k} {noun}{s} after {names[at]}?"), f"{k} {noun}{s} after {names[at]} is {then}.")]


def digits(rng: random.Random) -> Pairs:
    n = rng.randint(10, 999)
    parts = [int(c) for c in str(n)]
    return [(as_typed(rng, rng.choice([f"What are the digits of {n}?", f"Which digits does {n} have?"])), f"The digits of {n} are {listed([str(p) for p in parts])}.")]


TOPICS = [(sums, 16), (long_sum, 1), (word_problem, 4), (compare, 2), (parity, 2), (counting, 2), (half_double, 1), (square, 1), (order, 1.5), (spelled, 1), (table, 0.7), (calendar_sum, 1), (digits, 0.3)]


def numbers(rng: random.Random) -> Pairs:
    topic = rng.choices([t for t, _ in TOPICS], [w for _, w in TOPICS])[0]
    return topic(rng)
