"""Trains Baton's demo model, from scratch or on from where it is: lexicon, tokenizer, training on dialogues as they are composed, export, evaluation.

    python3 models/train/train.py --out models/demo --minutes 6.5

`--minutes` is the time from the start of the script to the last training step; export and evaluation take another one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shlex
import sys
import time
from pathlib import Path

STARTED = time.time()

import numpy as np  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import compose  # noqa: E402
import data as dialogues  # noqa: E402
import evaluate  # noqa: E402
import export  # noqa: E402
import lexicon as lex  # noqa: E402
import tokenizer as tok  # noqa: E402
from held_out import FILE as CASES, NEEDED  # noqa: E402
from model import Model, Shape  # noqa: E402
from muon import Muon  # noqa: E402

HERE = Path(__file__).parent
MEANINGS = {
    "recall": "a name or a fact told earlier is repeated right", "instructions": "a short system prompt is obeyed: a tone, the language of a greeting, a name, one word", "sums": "sums and differences of numbers to 999",
    "unknown": "it admits what it does not know", "known": "it answers what it knows", "copies": "it says that it does not know a word, and spells the word as it was"}
SEED = 20261130


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="the Hugging Face folder to write")
    p.add_argument("--minutes", type=float, default=6.5, help="from the start of the script to the last step")
    p.add_argument("--lexicon", type=Path, default=HERE / "build" / "lexicon.json.gz", help="made from WordNet if absent")
    p.add_argument("--part", type=int, default=4000, help="dialogues that a process composes at a time")
    p.add_argument("--group-tokens", type=int, default=24_576, help="a step has four groups")
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--weight-decay", type=float, default=0.05)
    p.add_argument("--start", type=Path, help="a folder that this script wrote before: go on from its weights and keep its tokenizer")
    p.add_argument("--instructed", type=float, default=compose.Shares.instructed, help="share of the dialogues with a system prompt that says how to answer")
    p.add_argument("--remembered", type=float, default=compose.Shares.remembered, help="share of those in which the user tells something and asks for it later")
    p.add_argument("--steps-max", type=int, default=1_000_000)
    p.add_argument("--compile", action="store_true", help="compile on a CPU, too")
    p.add_argument("--tiny", action="store_true", help="a small network, to try the script on a CPU")
    return p.parse_args()


def log(text: str) -> None:
    print(f"[{time.time() - STARTED:6.1f} s] {text}", flush=True)


def prepare(args: argparse.Namespace, shape: Shape):
    """The tokenizer, and dialogues for the held-out loss; writes the lexicon if there is none."""
    words = lex.read(args.lexicon) if args.lexicon.exists() else lex.write(args.lexicon)
    log(f"lexicon: {len(words['entries'])} words")
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json")) if args.start else train_tokenizer(args, words, shape)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    return tokenizer, dialogues.compose_part(7, words, tokenizer, args.part, compose.Shares())


def train_tokenizer(args: argparse.Namespace, words: dict, shape: Shape) -> Tokenizer:
    sample = compose.compose_parallel(words, min(40_000, 10 * args.part), SEED, os.cpu_count() or 1)
    tokenizer = tok.train(sample, shape.vocab)
    log(f"tokenizer: {tokenizer.get_vocab_size()} tokens from {sum(map(len, sample)) / 1e6:.0f} MB of text")
    return tokenizer


def learning_rate(progress: float, top: float) -> float:
    warm = min(1.0, progress / 0.02)
    return top * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def optimizers(model: Model, args: argparse.Namespace, device: torch.device) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, Adam for the embedding and the norms."""
    inner = [p for p in model.layers.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": [model.embedding], "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=device.type == "cuda")
    return [Muon(inner, args.lr, args.weight_decay), adam]


@torch.no_grad()
def held_out_loss(model: Model, held: dialogues.Data, group_tokens: int) -> float:
    """The mean loss over the answers of dialogues that training never sees."""
    held.weights = (held.weights == 1).float()
    plan = held.plan(group_tokens, np.random.default_rng(0))
    plan = [p for p in plan if p[1] * p[0].size > group_tokens // 2][: len(plan) // 4 * 4] or plan
    total = weight = 0.0
    for at in range(0, len(plan) - 3, 4):
        batch = held.batch(plan[at : at + 4], group_tokens)
        share = batch.weights.sum().item()
        total, weight = total + model(batch).item() * share, weight + share
    return total / max(weight, 1.0)


def train(args, model: Model, stream: dialogues.Stream, device: torch.device) -> tuple[int, list]:
    """Steps until the time is up; the learning rate follows the clock. Returns the steps and points of the curve."""
    opts = optimizers(model, args, device)
    batches = stream.batches(args.group_tokens, 4, SEED)
    curve, step, first = [], 0, None
    deadline = STARTED + args.minutes * 60
    while step < args.steps_max:
        now = time.time()
        first = now if step == 20 else first  # by then everything is compiled
        progress = 0.01 if first is None else max(0.01, (now - first) / max(deadline - first, 1e-3))
        if progress >= 1:
            break
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = learning_rate(progress, args.lr)
        loss = model(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0 and device.type == "cuda":
            torch.cuda.synchronize()  # keeps the clock honest
        if step % 200 == 0 or step == 10:
            curve.append([step, round(loss.item(), 4)])
            log(f"step {step}, loss {loss.item():.4f}, lr {group['lr']:.2e}, {progress:.0%}, {stream.repeated} chunks seen again")
    return step, curve


def main() -> None:
    args = arguments()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = Shape(hidden=96, layers=2, heads=3, kv_heads=1, head_dim=32, ffn=128, vocab=2048) if args.tiny else Shape()
    tokenizer, held = prepare(args, shape)
    shape.vocab = tokenizer.get_vocab_size()
    assistant = tokenizer.token_to_id("assistant")
    stream = dialogues.Stream(args.lexicon, args.out / "tokenizer.json", assistant, device, max(1, (os.cpu_count() or 1) - 2), args.part, compose.Shares(args.instructed, args.remembered))
    model = Model(shape, compiled=device.type == "cuda" or args.compile).to(device)
    if args.start:
        model.read(args.start)
    earlier = earlier_runs(args.start)
    parameters = sum(p.numel() for p in model.parameters())
    log(f"model: {parameters / 1e6:.2f} million parameters on {torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}")
    steps, curve = train(args, model, stream, device)
    trained_s = time.time() - STARTED
    loss = held_out_loss(model, dialogues.Data(*held, assistant, device), args.group_tokens)
    log(f"{steps} steps, held-out loss {loss:.4f}, {stream.tokens / 1e6:.0f} million tokens composed, {stream.repeated} chunks seen again")
    export.save(model, tokenizer, args.out)
    finish(args, shape, device, dict(steps=steps, curve=curve, loss=loss, parameters=parameters, trained_s=trained_s, tokens=stream.tokens, dialogues=stream.dialogues, earlier=earlier))


def earlier_runs(start: Path | None) -> list[dict]:
    """Those that the weights come from, the first one first, as their records say."""
    if start is None:
        return []
    record = json.loads((start / "training.json").read_text())
    run = {key: record[key] for key in ("date", "command", "steps", "tokens_seen", "corpus_dialogues", "held_out_loss")}
    return [*record.get("earlier", []), run]


def finish(args, shape: Shape, device: torch.device, run: dict) -> None:
    """Asks the saved model, and writes the record and the card."""
    from samples import Served
    import transformers

    served = Served(args.out, device)
    samples = served.show(24 if args.tiny else 220)
    cases = json.loads(CASES.read_text())
    score = evaluate.report(cases, served.evaluation(cases, 8 if args.tiny else evaluate.TOKENS_MAX))
    batch_tokens = 4 * args.group_tokens
    record = {
        "date": datetime.date.today().isoformat(), "command": shlex.join(["python3", "models/train/train.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "seconds": round(time.time() - STARTED), "seconds_to_last_step": round(run["trained_s"]),
        "parameters": run["parameters"], "steps": run["steps"], "batch_tokens": batch_tokens, "tokens_seen": run["steps"] * batch_tokens, "corpus_tokens": run["tokens"],
        "corpus_dialogues": run["dialogues"], "held_out_loss": round(run["loss"], 4), "evaluation": {group: hits for group, (hits, _) in score.items()}, "seed": SEED, "earlier": run["earlier"], "lr": args.lr, "weight_decay": args.weight_decay,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "loss_curve": run["curve"], "samples": samples}
    export.dump(args.out / "training.json", record)
    table = "\n".join(f"| {MEANINGS[group]} | {hits} of {count} | {NEEDED[group]} |" for group, (hits, count) in score.items())
    export.save_card(args.out, record | {"table": table, "million": f"{run['parameters'] / 1e6:.1f}", "vocab": shape.vocab, "seen_million": f"{run['steps'] * batch_tokens / 1e6:.0f}", "before": "\n".join(f"| before that | `{before['command']}`, {before['steps']} steps |" for before in run["earlier"]) or "| before that | nothing: from scratch |"})
    log("done")


if __name__ == "__main__":
    main()
