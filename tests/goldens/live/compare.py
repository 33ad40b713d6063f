"""Compares the engine on a GPU with transformers on the same GPU, in one run.

    python tests/goldens/live/compare.py PROGRAM FAMILY...

PROGRAM is the engine's example `logits`, built; FAMILY one of `models.py`, `small` for all but the
large one, or `goldens` for the tiny checkpoints beside this folder. For each a checkpoint with random
weights is written to a temporary folder, unless it is there, and then

- transformers computes the reference in 32-bit floats over the checkpoint's (16-bit) weights, and
  the same once more in 16-bit arithmetic, which shows what rounding alone does;
- the engine computes logits of every position, and continues the prompt greedily;
- each of the engine's tokens must be the reference's likeliest after the same tokens, or a tie: the
  two logits nearer to each other than twice the engine's largest error.

A relative error `|out - reference| / |reference|` of more than 1.5 times that of transformers in 16
bits, or a token that is no tie, makes the run fail.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from models import FAMILIES, Family

#: Without a GPU the script compares on the CPU, to be tried out.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GOLDENS = Path(__file__).parent.parent
SHARD_BYTES = 2 << 30
#: How much worse than transformers in 16 bits a run may be.
RATIO_MAX = 1.5


@dataclass
class Logits:
    """`[tokens, vocabulary]` each, on the GPU."""

    reference: torch.Tensor
    rounded: torch.Tensor
    ours: torch.Tensor


# --- The checkpoint. ---


def config_of(family: Family) -> PretrainedConfig:
    config = AutoConfig.for_model(family.model_type, **family.config)
    config.architectures = [family.architecture]
    return config


def build(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager").eval()


@torch.no_grad()
def randomize(model: PreTrainedModel) -> None:
    """Matrices that keep the scale of what they are given, norms near 1, biases that matter."""
    generator = torch.Generator(DEVICE).manual_seed(11)
    for name, weight in model.named_parameters():
        weight.normal_(generator=generator)
        if name.endswith("norm.weight"):
            weight.mul_(0.1).add_(1)
        elif name.endswith(".bias"):
            weight.mul_(0.1)
        else:
            weight.mul_(weight.shape[1] ** -0.5)
    model.tie_weights()


def save(model: PreTrainedModel, directory: Path) -> None:
    """Writes shards at the same time: one writer is slower than the disk."""
    model.config.save_pretrained(directory)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if size + weight.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = weight
        size += weight.nbytes
    names = [f"model-{at + 1:05}-of-{len(shards):05}.safetensors" for at in range(len(shards))]
    if len(shards) == 1:
        names = ["model.safetensors"]

    def write(shard: tuple[str, dict[str, torch.Tensor]]) -> None:
        save_file({k: v.cpu().contiguous() for k, v in shard[1].items()}, directory / shard[0],
                  metadata={"format": "pt"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, zip(names, shards, strict=True)))
    if len(shards) > 1:
        index = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        text = json.dumps({"metadata": {}, "weight_map": index})
        (directory / "model.safetensors.index.json").write_text(text)


# --- Computing. ---


@torch.no_grad()
def logits_of(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids], device=DEVICE), use_cache=False).logits[0].float()


def run(program: str, directory: Path, case: Case) -> tuple[torch.Tensor, list[int]]:
    """The engine's logits of all positions, and the tokens it adds."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, out = Path(folder) / "tokens", Path(folder) / "logits"
        tokens.write_text(" ".join(map(str, case.ids)))
        command = [program, "--model", str(directory), "--tokens", str(tokens), "--out", str(out),
                   "--greedy", str(case.greedy), "--device", DEVICE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        flat = torch.frombuffer(bytearray(out.read_bytes()), dtype=torch.float32)
    answer = [line for line in done.stdout.splitlines() if line.startswith("greedy")][0]
    return flat.view(len(case.ids), -1).to(DEVICE), [int(token) for token in answer.split()[1:]]


def error(got: torch.Tensor, want: torch.Tensor) -> tuple[float, float]:
    """Of all rows together, and of the worst one."""
    off = (got - want).norm(dim=1) / want.norm(dim=1)
    return float((got - want).norm() / want.norm()), float(off.nan_to_num(torch.inf).max())


# --- One model. ---


def compare_family(program: str, family: Family) -> bool:
    """A model that is made here."""
    start = time.time()
    config = config_of(family)
    config.dtype = family.dtype
    model = build(config, getattr(torch, family.dtype))
    randomize(model)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        save(model, directory)
        print(f"{family.name}: written in {time.time() - start:.1f} s", flush=True)
        generator = torch.Generator().manual_seed(5)
        ids = torch.randint(0, config.vocab_size, (family.tokens,), generator=generator).tolist()
        rounded = logits_of(model, ids)
        del model
        return compare(program, directory, Case(family.name, ids, family.greedy), rounded)


def compare_golden(program: str, directory: Path) -> bool:
    """A tiny checkpoint of `tests/goldens`: how far 16 bits carry with its wide weights."""
    golden = json.loads((directory / "golden.json").read_text())
    dtype = torch.float16 if golden["weights_dtype"] == "float16" else torch.bfloat16
    # Past its trained length, the dynamic rotation depends on how transformers is called.
    prompt = golden["prompts"][1 if "dynamic" in directory.name else 2]["ids"]
    rounded = logits_of(load(directory, dtype), prompt)
    return compare(program, directory, Case(directory.name, prompt, 0), rounded)


@dataclass
class Case:
    name: str
    ids: list[int]
    greedy: int


def load(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", device_map=DEVICE).eval()


def compare(program: str, directory: Path, case: Case, rounded: torch.Tensor) -> bool:
    free()
    start = time.time()
    ours, answer = run(program, directory, case)
    ran = time.time()
    # The same weights, in 32-bit arithmetic.
    wide = load(directory, torch.float32)
    reference = logits_of(wide, case.ids)
    fine = report(case, Logits(reference, rounded, ours))
    if answer:
        fine &= follow(case, wide, answer, float((ours - reference).abs().max()))
        print(f"    {ran - start:.1f} s for the engine, {time.time() - ran:.1f} s for the reference",
              flush=True)
    del wide
    free()
    return fine


def free() -> None:
    """Gives memory back: the engine is another process."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def report(case: Case, logits: Logits) -> bool:
    ours, ours_worst = error(logits.ours, logits.reference)
    theirs, theirs_worst = error(logits.rounded, logits.reference)
    fine = ours <= RATIO_MAX * theirs and ours_worst <= 2 * RATIO_MAX * theirs_worst
    print(f"{case.name:20} {len(case.ids):4} tokens: engine {ours:.2e} (worst row {ours_worst:.2e}), "
          f"transformers {theirs:.2e} ({theirs_worst:.2e}), ratio {ours / theirs:.2f}"
          f"{'' if fine else '  WRONG'}", flush=True)
    return fine


def follow(case: Case, wide: PreTrainedModel, answer: list[int], off: float) -> bool:
    """Checks each token of the engine's against the reference after the same tokens."""
    rows = logits_of(wide, case.ids + answer)[len(case.ids) - 1 : -1]
    best = rows.max(dim=1)
    chosen = torch.tensor(answer, device=DEVICE)
    gaps = best.values - rows.gather(1, chosen[:, None])[:, 0]
    equal = int((best.indices == chosen).sum())
    wrong = int((gaps > 2 * off).sum())
    print(f"    greedy: {equal} of {len(answer)} equal, {len(answer) - equal - wrong} ties (largest "
          f"{float(gaps.max()):.3f}, error {off:.3f}), {wrong} wrong", flush=True)
    return wrong == 0


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    transformers.utils.logging.disable_progress_bar()
    program, *names = sys.argv[1:]
    families = [f for f in FAMILIES if f.name in names or "small" in names and not f.is_large]
    folders = sorted(file.parent for file in GOLDENS.glob("*/golden.json")) if "goldens" in names else []
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else DEVICE}", flush=True)
    results = [compare_golden(program, folder) for folder in folders]
    results += [compare_family(program, family) for family in families]
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
