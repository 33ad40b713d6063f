"""Asks a running Baton the cases of `cases.json`, greedily, and counts what it gets right.

    baton up                                   # in another terminal
    python3 models/train/evaluate.py           # needs nothing but Python

A conversation goes as it would with a person: the model's own answers stay in it. Exits with 1 if too few are right.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from held_out import FILE, NEEDED, Json

TOKENS_MAX = 96
TIMEOUT_S = 120


def right(expected: Json, answer: str) -> bool:
    """Whether an answer meets what its case expects; `any` and `none` ignore capitals, `every` does not."""
    low = answer.casefold()
    numbers = re.findall(r"-?\d+", answer.replace(",", ""))
    return (
        all(text in answer for text in expected.get("every", []))
        and (not expected.get("any") or any(text.casefold() in low for text in expected["any"]))
        and not any(text in low for text in expected.get("none", []))
        and len(answer.split()) in range(1, expected.get("words_max", 1000) + 1)
        and ("last_number" not in expected or numbers[-1:] == [str(expected["last_number"])])
    )


def chat(url: str, model: str, messages: list[dict]) -> str:
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": TOKENS_MAX}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)["choices"][0]["message"]["content"] or ""


def talk(url: str, model: str, case: Json) -> list[dict]:
    """The whole conversation of a case."""
    messages = [{"role": "system", "content": case["system"]}] if case["system"] else []
    for turn in case["turns"]:
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": chat(url, model, messages)})
    return messages


def report(cases: list[Json], talks: list[list[dict]]) -> dict[str, tuple[int, int]]:
    """Prints the conversations that went wrong and a table; returns right answers and cases of each group."""
    score: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for case, messages in zip(cases, talks, strict=True):
        good, (hits, count) = right(case["expected"], messages[-1]["content"]), score[case["group"]]
        score[case["group"]] = hits + good, count + 1
        if not good:
            print(f"{case['group']}: expected {case['expected']}", *(f"  {m['role']}: {m['content']}" for m in messages), sep="\n")
    for group, (hits, count) in score.items():
        print(f"{group:14} {hits:3} of {count}, needed {NEEDED[group]}")
    return dict(score)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--url", default="http://127.0.0.1:8000")
    p.add_argument("--model", default="baton-demo", help="its name as served")
    p.add_argument("--cases", type=Path, default=FILE)
    p.add_argument("--least", metavar="GROUP=N", action="append", default=[], help="what to hold a group to, instead of what is needed")
    p.add_argument("--at-once", type=int, default=4, help="conversations in flight")
    args = p.parse_args()
    cases = json.loads(args.cases.read_text())
    least = NEEDED | {group: int(hits) for group, hits in (text.split("=") for text in args.least)}
    with ThreadPoolExecutor(args.at_once) as pool:
        talks = list(pool.map(lambda c: talk(args.url, args.model, c), cases))
    score = report(cases, talks)
    return int(any(hits < least[group] for group, (hits, _) in score.items()))


if __name__ == "__main__":
    sys.exit(main())
