"""Dialogues as token ids on the device, and batches of them.

A step is made of groups; a group holds dialogues of about one length, so that plain causal attention over
`[rows, length]` needs no mask and wastes little on padding. All other operations see one flat list of tokens.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import tokenizer as tok
from compose import Composer, TOKENS_MAX

PART = 4000
OTHER_WEIGHT = 0.1  # of the loss on tokens that the assistant did not write
LENGTH_STEP = 16


def compose_part(seed: int, lexicon: dict, tokenizer: Tokenizer, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Composes and encodes one part: all ids in a row, and the length of each dialogue."""
    import random

    composer, rng = Composer(lexicon), random.Random(seed)
    ids = tok.encode(tokenizer, [composer.conversation(rng) for _ in range(count)])
    ids = [i for i in ids if len(i) <= TOKENS_MAX]
    return np.concatenate(ids), np.array([len(i) for i in ids])


_worker: dict = {}


def _start_worker(lexicon: dict, tokenizer_path: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker["args"] = (lexicon, Tokenizer.from_file(tokenizer_path))


def _work(task: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    seed, count = task
    return compose_part(seed, *_worker["args"], count)


def compose_all(lexicon: dict, tokenizer_path: Path, dialogues: int, processes: int) -> tuple[np.ndarray, np.ndarray]:
    tasks = [(1000 + i, min(PART, dialogues - i * PART)) for i in range(-(-dialogues // PART))]
    with ProcessPoolExecutor(processes, get_context("spawn"), _start_worker, (lexicon, str(tokenizer_path))) as pool:
        parts = list(pool.map(_work, tasks))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@dataclass
class Batch:
    """One step's tokens, flat: ids, targets, loss weights and positions are `[tokens]`; `groups` are the attention
    shapes `(rows, length)`, each covering the first `rows * length` of its group's tokens."""

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    groups: list[tuple[int, int]]


class Data:
    def __init__(self, ids: np.ndarray, lengths: np.ndarray, assistant: int, device: torch.device):
        answered = tok.answer_mask(ids, assistant)
        self.ids = torch.from_numpy(ids.astype(np.int32)).to(device)
        self.weights = torch.from_numpy(np.where(answered, 1.0, OTHER_WEIGHT).astype(np.float32)).to(device)
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.lengths = lengths
        self.device = device

    def epochs(self, group_tokens: int, groups: int, seed: int):
        """Batches without end; each epoch shuffles anew."""
        rng = np.random.default_rng(seed)
        while True:
            plan = self.plan(group_tokens, rng)
            for at in range(0, len(plan) - groups + 1, groups):
                yield self.batch(plan[at : at + groups], group_tokens)

    def plan(self, group_tokens: int, rng: np.random.Generator) -> list[tuple[np.ndarray, int]]:
        """Groups of dialogues of similar length, in random order."""
        rounded = -(-self.lengths // LENGTH_STEP) * LENGTH_STEP
        order = np.argsort(rounded + rng.random(len(rounded)), kind="stable")
        plan, end = [], len(order)
        while end > 0:
            length = int(rounded[order[end - 1]])
            rows = max(1, group_tokens // length)
            plan.append((order[max(0, end - rows) : end], length))
            end -= rows
        rng.shuffle(plan)
        return plan

    def batch(self, plan: list[tuple[np.ndarray, int]], group_tokens: int) -> Batch:
        parts: dict[str, list[torch.Tensor]] = {"ids": [], "targets": [], "weights": [], "positions": []}
        for docs, length in plan:
            start = torch.from_numpy(self.starts[docs]).to(self.device)[:, None]
            size = torch.from_numpy(self.lengths[docs]).to(self.device)[:, None]
            at = torch.arange(length, device=self.device)[None, :]
            has_next = at + 1 < size
            index = start + torch.minimum(at, size - 1)
            following = torch.where(has_next, index + 1, index)
            made = {
                "ids": self.ids[index], "targets": self.ids[following], "weights": self.weights[following] * has_next, "positions": at.expand_as(index)}
            rest = group_tokens - docs.size * length
            for key, value in made.items():
                parts[key].append(torch.nn.functional.pad(value.reshape(-1), (0, rest)))
        joined = {key: torch.cat(values) for key, values in parts.items()}
        return Batch(joined["ids"], joined["targets"].long(), joined["weights"], joined["positions"], [(d.size, n) for d, n in plan])
