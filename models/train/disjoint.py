"""Proves that the evaluation's cases are held out: composes dialogues as training does, and looks for what they call unseen.

    python3 models/train/disjoint.py --dialogues 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lexicon as lex
from compose import compose
from held_out import FILE, held_out_sum

HERE = Path(__file__).parent
PART = 4000
WORD = re.compile(r"[^\W_]+")
SUM = re.compile(r"\b(\d{1,3}) ?(\+|plus|-|minus) ?(\d{1,3})\b")


def words_of(text: str) -> str:
    """Words in small letters between single blanks, so that a text is found whole words at a time."""
    return " " + " ".join(WORD.findall(text.casefold())) + " "


def seen(lexicon: dict, count: int, seed: int, unseen: list[str]) -> set[str]:
    """Those of `unseen` that one part of the dialogues holds, and its sums that should have been held out.

    Sums are looked for with their signs: two numbers beside each other are none.
    """
    texts = compose(lexicon, count, seed)
    everything = words_of(" ".join(texts))
    found = {text for text in unseen if not SUM.fullmatch(text) and words_of(text) in everything}
    for x, sign, y in set(SUM.findall(" ".join(texts))):
        if held_out_sum("add" if sign in ("+", "plus") else "sub", int(x), int(y)):
            found.add(f"{x} {sign} {y}")
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--lexicon", type=Path, default=HERE / "build" / "lexicon.json.gz", help="made from WordNet if absent")
    p.add_argument("--dialogues", type=int, default=200_000)
    args = p.parse_args()
    lexicon = lex.read(args.lexicon) if args.lexicon.exists() else lex.write(args.lexicon)
    unseen = sorted({text for case in json.loads(FILE.read_text()) for text in case["unseen"]})
    parts = -(-args.dialogues // PART)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = set().union(*pool.map(seen, [lexicon] * parts, [PART] * parts, range(1000, 1000 + parts), [unseen] * parts))
    print(f"{len(unseen)} texts of the evaluation and its sums, {parts * PART} dialogues: {len(found)} found", *sorted(found), sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
