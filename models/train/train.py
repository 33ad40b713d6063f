"""Trains Baton's demo model from scratch: lexicon, tokenizer, dialogues, training, export, samples.

    python3 models/train/train.py --out models/demo --minutes 6.5

`--minutes` is the time from the start of the script to the last training step; export and samples take another one.
"""

from __future__ import annotations

import argparse
import datetime
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

import compose  # noqa: E402
import data as dialogues  # noqa: E402
import export  # noqa: E402
import lexicon as lex  # noqa: E402
import tokenizer as tok  # noqa: E402
from model import Model, Shape  # noqa: E402

HERE = Path(__file__).parent
SEED = 20261123


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="the Hugging Face folder to write")
    p.add_argument("--minutes", type=float, default=6.5, help="from the start of the script to the last step")
    p.add_argument("--lexicon", type=Path, default=HERE / "build" / "lexicon.json.gz", help="made from WordNet if absent")
    p.add_argument("--dialogues", type=int, default=1_200_000)
    p.add_argument("--group-tokens", type=int, default=16_384, help="a step has four groups")
    p.add_argument("--lr", type=float, default=2.5e-3)
    p.add_argument("--weight-decay", type=float, default=0.05)
    p.add_argument("--steps-max", type=int, default=1_000_000)
    p.add_argument("--compile", action="store_true", help="compile on a CPU, too")
    p.add_argument("--tiny", action="store_true", help="a small network, to try the script on a CPU")
    return p.parse_args()


def log(text: str) -> None:
    print(f"[{time.time() - STARTED:6.1f} s] {text}", flush=True)


def prepare(args: argparse.Namespace, shape: Shape):
    """The lexicon, the tokenizer, and the dialogues as ids."""
    words = lex.read(args.lexicon) if args.lexicon.exists() else lex.write(args.lexicon)
    log(f"lexicon: {len(words['entries'])} words")
    sample = compose.compose_parallel(words, min(40_000, args.dialogues), SEED, os.cpu_count() or 1)
    tokenizer = tok.train(sample, shape.vocab)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    log(f"tokenizer: {tokenizer.get_vocab_size()} tokens from {sum(map(len, sample)) / 1e6:.0f} MB of text")
    ids, lengths = dialogues.compose_all(words, args.out / "tokenizer.json", args.dialogues, os.cpu_count() or 1)
    log(f"dialogues: {len(lengths)}, {len(ids) / 1e6:.1f} million tokens, the longest {lengths.max()}")
    held = dialogues.compose_part(7, words, tokenizer, 3000 if args.dialogues > 10_000 else 50)
    return tokenizer, (ids, lengths), held


def learning_rate(progress: float, top: float) -> float:
    warm = min(1.0, progress / 0.02)
    return top * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def optimizer(model: Model, args: argparse.Namespace, device: torch.device) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=device.type == "cuda")


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


def train(args, model: Model, data: dialogues.Data, device: torch.device) -> tuple[int, list]:
    """Steps until the time is up; the learning rate follows the clock. Returns the steps and points of the curve."""
    opt = optimizer(model, args, device)
    batches = data.epochs(args.group_tokens, 4, SEED)
    curve, step, first = [], 0, None
    deadline = STARTED + args.minutes * 60
    while step < args.steps_max:
        now = time.time()
        first = now if step == 20 else first  # by then everything is compiled
        progress = 0.01 if first is None else max(0.01, (now - first) / max(deadline - first, 1e-3))
        if progress >= 1:
            break
        for group in opt.param_groups:
            group["lr"] = learning_rate(progress, args.lr)
        loss = model(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0 and device.type == "cuda":
            torch.cuda.synchronize()  # keeps the clock honest
        if step % 200 == 0 or step == 10:
            curve.append([step, round(loss.item(), 4)])
            log(f"step {step}, loss {loss.item():.4f}, lr {opt.param_groups[0]['lr']:.2e}, {progress:.0%}")
    return step, curve


def main() -> None:
    args = arguments()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = Shape(hidden=96, layers=2, heads=3, kv_heads=1, head_dim=32, ffn=128, vocab=2048) if args.tiny else Shape()
    tokenizer, (ids, lengths), held = prepare(args, shape)
    shape.vocab = tokenizer.get_vocab_size()
    assistant = tokenizer.token_to_id("assistant")
    data = dialogues.Data(ids, lengths, assistant, device)
    model = Model(shape, compiled=device.type == "cuda" or args.compile).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    log(f"model: {parameters / 1e6:.2f} million parameters on {torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}")
    steps, curve = train(args, model, data, device)
    trained_s = time.time() - STARTED
    loss = held_out_loss(model, dialogues.Data(*held, assistant, device), args.group_tokens)
    log(f"{steps} steps, held-out loss {loss:.4f}")
    export.save(model, tokenizer, args.out)
    finish(args, shape, device, dict(steps=steps, curve=curve, loss=loss, parameters=parameters, trained_s=trained_s, tokens=len(ids), dialogues=len(lengths)))


def finish(args, shape: Shape, device: torch.device, run: dict) -> None:
    """Asks the saved model, and writes the record and the card."""
    from samples import Served
    import transformers

    served = Served(args.out, device)
    samples = served.show(24 if args.tiny else 220)
    accuracy = served.sums(8 if args.tiny else 200)
    log(f"held-out sums right: {accuracy:.1%}")
    batch_tokens = 4 * args.group_tokens
    record = {
        "date": datetime.date.today().isoformat(), "command": shlex.join(["python3", "models/train/train.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "seconds": round(time.time() - STARTED), "seconds_to_last_step": round(run["trained_s"]),
        "parameters": run["parameters"], "steps": run["steps"], "batch_tokens": batch_tokens, "tokens_seen": run["steps"] * batch_tokens, "corpus_tokens": run["tokens"],
        "corpus_dialogues": run["dialogues"], "held_out_loss": round(run["loss"], 4), "held_out_sums_right": accuracy, "seed": SEED, "lr": args.lr, "weight_decay": args.weight_decay,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "loss_curve": run["curve"], "samples": samples}
    export.dump(args.out / "training.json", record)
    export.save_card(args.out, record | {"million": f"{run['parameters'] / 1e6:.1f}", "vocab": shape.vocab, "sums": f"{accuracy:.0%}", "seen_million": f"{run['steps'] * batch_tokens / 1e6:.0f}"})
    log("done")


if __name__ == "__main__":
    main()
