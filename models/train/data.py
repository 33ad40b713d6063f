"""Dialogues as token ids on the device, and batches of them.

A step is made of groups; a group holds dialogues of about one length, so that plain causal attention over
`[rows, length]` needs no mask and wastes little on padding. All other operations see one flat list of tokens.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import lexicon as lex
import tokenizer as tok
from compose import TOKENS_MAX, Shares, compose

FIRST_SEED = 1000
PARTS = 16  # of a chunk; with parts of 4,000 dialogues, a chunk lasts for about 115 steps
PART_SECONDS_MAX = 300
OTHER_WEIGHT = 0.05  # of the loss on tokens that the assistant did not write
LENGTH_STEP = 16


def compose_part(seed: int, lexicon: dict, tokenizer: Tokenizer, count: int, shares: Shares) -> tuple[np.ndarray, np.ndarray]:
    """Composes and encodes one part: all ids in a row, and the length of each dialogue."""
    ids = tok.encode(tokenizer, compose(lexicon, count, seed, shares))
    ids = [i for i in ids if len(i) <= TOKENS_MAX]
    return np.concatenate(ids), np.array([len(i) for i in ids])


def _compose_for_ever(queue, lexicon_path: Path, tokenizer_path: Path, count: int, shares: Shares, seeds: tuple[int, int]) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    lexicon, tokenizer = lex.read(lexicon_path), Tokenizer.from_file(str(tokenizer_path))
    for seed in itertools.count(*seeds):
        queue.put(compose_part(seed, lexicon, tokenizer, count, shares))


class Stream:
    """Dialogues without end, composed by other processes while the device trains, so that each is seen about once.

    They come in chunks of `PARTS` parts. If they are not composed fast enough, an earlier chunk is seen again.
    """

    def __init__(self, lexicon_path: Path, tokenizer_path: Path, assistant: int, device: torch.device, processes: int, part: int, shares: Shares):
        context = get_context("spawn")
        self.queue = context.Queue(2 * max(processes, PARTS))
        self.assistant, self.device = assistant, device
        self.tokens = self.dialogues = self.repeated = 0
        self.chunks: list[Data] = []
        for i in range(processes):
            args = (self.queue, lexicon_path, tokenizer_path, part, shares, (FIRST_SEED + i, processes))
            context.Process(target=_compose_for_ever, args=args, daemon=True).start()

    def batches(self, group_tokens: int, groups: int, seed: int) -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        while True:
            yield from self.chunk(rng).batches(group_tokens, groups, rng)

    def chunk(self, rng: np.random.Generator) -> Data:
        if self.chunks and self.queue.qsize() < PARTS:
            self.repeated += 1
            return self.chunks[rng.integers(len(self.chunks))]
        parts = [self.queue.get(timeout=PART_SECONDS_MAX) for _ in range(PARTS)]
        ids, lengths = (np.concatenate(column) for column in zip(*parts))
        self.tokens, self.dialogues = self.tokens + len(ids), self.dialogues + len(lengths)
        self.chunks.append(Data(ids, lengths, self.assistant, self.device))
        return self.chunks[-1]


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

    def batches(self, group_tokens: int, groups: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All dialogues once, but for the few that fill no batch."""
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
