"""Questions and answers about Baton itself, from `baton_facts.txt`."""

from __future__ import annotations

import random
from pathlib import Path

from .text import Pairs, as_typed

TERM = ["What is {t}?", "What is {t}?", "What's {t}?", "What does {t} mean?", "What does {t} mean in Baton?", "What is {t} in Baton?", "Explain {t}.", "Define {t}.", "Tell me about {t}.",
        "Can you explain {t}?", "Do you know what {t} is?", "{t}?", "{t}", "Explain the term {t}.", "What do you mean by {t}?", "What is meant by {t}?"]
BARE = {"Baton", "prefill", "decode", "etcd", "TTFT", "ITL", "TPOT", "goodput", "disaggregation", "prefix caching", "placement", "admission", "draining", "chunked prefill", "attention",
        "safetensors", "GQA", "streaming", "throughput", "latency"}


def load() -> list[tuple[list[str], list[str]]]:
    """All facts as (questions, answers)."""
    facts, questions, answers, term = [], [], [], ""
    lines = (Path(__file__).parent / "baton_facts.txt").read_text().splitlines() + [""]
    for line in lines:
        key, _, text = line.partition(": ")
        if key == "T":
            term = text
        elif key == "Q":
            questions += text.split(" | ")
        elif key == "A":
            answers.append(text)
        elif not line and answers:
            if term:
                shown = term if term in BARE else ("an " if term[0] in "aeiouS" else "a ") + term
                questions += [form.format(t=shown if form[-1] in "?." and len(form) > 4 else term) for form in TERM[: max(8, len(questions) * 3)]]
            facts.append((questions, answers))
            questions, answers, term = [], [], ""
    return facts


FACTS = load()


def baton(rng: random.Random) -> Pairs:
    questions, answers = rng.choice(FACTS)
    pairs = [(as_typed(rng, rng.choice(questions)), rng.choice(answers))]
    if rng.random() < 0.12:
        questions, answers = rng.choice(FACTS)
        asked = rng.choice(questions)
        if asked.endswith("?"):
            pairs.append((as_typed(rng, f"And {asked[0].lower()}{asked[1:]}"), rng.choice(answers)))
    return pairs
