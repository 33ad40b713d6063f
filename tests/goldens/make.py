"""Writes the model goldens: tiny random checkpoints, and what transformers computes with them.

    python tests/goldens/make.py [name ...]

Everything runs on the CPU in 32-bit floats, on one thread, with eager attention. The formats are in
README.md, the models in cases.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from cases import CASES, VOCAB, Case

HERE = Path(__file__).parent
GREEDY_TOKENS = 32
#: Least distance between the two best logits wherever a greedy token is chosen.
MIN_GAP = 0.01
#: A greedy continuation that repeats itself shows little.
MIN_DISTINCT = 10
#: By how much logits must change with each of a case's mistakes.
MIN_EFFECT = 0.02
SEEDS = range(1, 400)

CACHED = (
    "use_cache=True: one forward over the whole prompt, then one forward per token over that token "
    "alone, with the cached keys as they were rotated when they were computed"
)


class SeedRefused(Exception):
    """These weights make a poor golden; others may do."""


# --- Building a model. ---


def config_of(case: Case, **changes: Any) -> transformers.PretrainedConfig:
    """The configuration in the form of transformers 5, perhaps with a mistake in it."""
    values = json.loads(json.dumps({k: v for k, v in (case.config | changes).items()}))
    if values.get("head_dim", 0) is None:
        del values["head_dim"]
    return AutoConfig.for_model(case.model_type, **values)


def build(config: transformers.PretrainedConfig) -> PreTrainedModel:
    """A model of this configuration, in 32-bit floats, with weights of no meaning."""
    return AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager").eval()


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Fills all weights: norms and biases too, and wide enough for attention and logits to be sharp."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = (1.0 + 0.4 * noise).clamp(min=0.1)
        elif name.endswith(".bias"):
            value = 0.5 * noise
        elif "embed_tokens" in name:
            value = 0.3 * noise
        elif "lm_head" in name:
            value = 0.5 * noise
        else:
            value = 1.6 * noise / weight.shape[1] ** 0.5
        weight.data.copy_(value)
    model.tie_weights()


def round_to(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Weights as the file will hold them, in 32-bit floats again."""
    for weight in model.parameters():
        weight.data.copy_(weight.data.to(dtype).float())
    return model


# --- Computing. ---


@torch.no_grad()
def full_forward(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """`[len(ids), vocab]`: logits of one forward over everything, without a cache."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


@torch.no_grad()
def stepwise(model: PreTrainedModel, ids: list[int]) -> tuple[torch.Tensor, Any]:
    """Logits of one forward per token, and the cache they leave."""
    rows, cache = [], None
    for token in ids:
        out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        rows, cache = [*rows, out.logits[0, -1]], out.past_key_values
    return torch.stack(rows), cache


class Greedy:
    """Collects the best tokens and by how much they were better."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.gap = float("inf")

    def take(self, row: torch.Tensor) -> int:
        best = row.topk(2)
        self.gap = min(self.gap, float(best.values[0] - best.values[1]))
        self.tokens.append(int(best.indices[0]))
        return self.tokens[-1]

    def json(self) -> dict[str, Any]:
        return {"greedy": self.tokens, "min_gap": round(self.gap, 6)}


@torch.no_grad()
def greedy_cached(model: PreTrainedModel, ids: list[int], by_token: bool = False) -> Greedy:
    """Continues `ids` with a cache, the prompt in one forward or token by token."""
    greedy = Greedy()
    if by_token:
        rows, cache = stepwise(model, ids)
        row = rows[-1]
    else:
        out = model(torch.tensor([ids]), use_cache=True)
        row, cache = out.logits[0, -1], out.past_key_values
    while len(greedy.tokens) < GREEDY_TOKENS:
        token = greedy.take(row)
        out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        row, cache = out.logits[0, -1], out.past_key_values
    return greedy


def greedy_uncached(model: PreTrainedModel, ids: list[int]) -> Greedy:
    """Continues `ids` with a full forward for every token."""
    greedy, all_ids = Greedy(), list(ids)
    while len(greedy.tokens) < GREEDY_TOKENS:
        all_ids.append(greedy.take(full_forward(model, all_ids)[-1]))
    return greedy


def accept(greedy: Greedy) -> Greedy:
    """Refuses near ties and dull continuations."""
    if greedy.gap < MIN_GAP or len(set(greedy.tokens)) < MIN_DISTINCT:
        raise SeedRefused
    return greedy


# --- One case. ---


def prompts_of(case: Case, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(10_000 + seed)
    return [torch.randint(VOCAB, (n,), generator=generator).tolist() for n in case.prompt_lengths]


def golden(case: Case, model: PreTrainedModel, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `golden.json` and `golden.safetensors` hold.

    With dynamic scaling, transformers' rotary module remembers the longest call, so each
    computation there starts from a fresh module.
    """
    weights = model.state_dict()

    def fresh() -> PreTrainedModel:
        if not case.is_dynamic:
            return model
        other = build(model.config)
        other.load_state_dict(weights)
        return other

    prompts, tensors = [], {}
    for index, ids in enumerate(prompts_of(case, seed)):
        tensors[f"logits.{index}"] = full_forward(fresh(), ids).contiguous()
        cached, uncached = accept(greedy_cached(fresh(), ids)), greedy_uncached(fresh(), ids)
        prompt = {"ids": ids, "logits": f"logits.{index}"} | cached.json()
        if case.is_dynamic:
            tensors[f"stepwise.{index}"] = stepwise(fresh(), ids)[0].contiguous()
            by_token = accept(greedy_cached(fresh(), ids, by_token=True))
            prompt["stepwise"] = {"logits": f"stepwise.{index}"} | by_token.json()
            prompt["uncached"] = accept(uncached).json()
        elif uncached.tokens != cached.tokens:
            raise AssertionError(f"{case.name}: cached and uncached differ")
        prompts.append(prompt)
    return describe(case, seed, prompts), tensors


def describe(case: Case, seed: int, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """`golden.json` around its prompts."""
    text = {
        "format": 1, "name": case.name, "about": case.about, "weights_dtype": case.dtype,
        "config_form": "rope_parameters" if case.old_form is None else "rope_scaling",
        "seed": seed, "transformers": transformers.__version__, "logits_method":
        "one forward over the whole prompt, use_cache=False", "greedy_method": CACHED,
        "greedy_ignores_eos": True, "min_gap": min(p["min_gap"] for p in prompts),
    }
    if case.is_dynamic:
        text["note"] = (
            "Frequencies come from the longest position of a forward call. `stepwise` feeds the "
            "prompt token by token with a cache, so that each row is rotated for a sequence that "
            "ends with it; `uncached` runs a full forward per greedy token, so that earlier keys "
            "are rotated anew. Up to the original context all three agree.")
    return text | {"prompts": prompts}


def check_mistakes(case: Case, model: PreTrainedModel, ids: list[int], logits: torch.Tensor) -> None:
    """Refuses weights with which a mistake would hardly show."""
    for mistake, changes in case.mistakes.items():
        wrong = build(config_of(case, **changes))
        wrong.load_state_dict(model.state_dict(), strict=False)
        effect = float((full_forward(wrong, ids) - logits).abs().max())
        if effect < MIN_EFFECT:
            print(f"  {case.name}: {mistake} changes logits by {effect:.4f} only")
            raise SeedRefused


# --- Files. ---


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def compact(text: dict[str, Any]) -> str:
    """JSON with every list of numbers on one line."""
    lists: list[str] = []

    def fold(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fold(inner) for key, inner in value.items()}
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            lists.append(json.dumps(value))
            return f"@{len(lists) - 1}@"
        return [fold(item) for item in value] if isinstance(value, list) else value

    folded = json.dumps(fold(text), indent=2)
    for index, numbers in enumerate(lists):
        folded = folded.replace(f'"@{index}@"', numbers)
    return folded + "\n"


def save(case: Case, model: PreTrainedModel, folder: Path) -> None:
    """The checkpoint, with config.json in the case's form."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stored = build(config_of(case)).to(getattr(torch, case.dtype))
    stored.load_state_dict(model.state_dict())
    stored.save_pretrained(folder, max_shard_size="60KB" if case.sharded else "1GB")
    (folder / "generation_config.json").unlink()
    for path in folder.iterdir():
        path.chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    if case.old_form is not None:
        config = old_form(case, config)
    dump(folder / "config.json", config)
    if case.generation is not None:
        dump(folder / "generation_config.json", case.generation)


def old_form(case: Case, config: dict[str, Any]) -> dict[str, Any]:
    """config.json as transformers 4 wrote it, and as nearly all of the hub has it."""
    for key in ("rope_parameters", "transformers_version", *case.old_form_drops):
        config.pop(key, None)
    config["torch_dtype"] = config.pop("dtype")
    return dict(sorted((config | case.old_form).items()))


def reload(folder: Path) -> PreTrainedModel:
    """The model as transformers reads it from its files, config.json in whichever form.

    32-bit weights would stay mapped where the file has them; how memory is aligned decides in which
    order sums are taken, so they are copied.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model


def make(case: Case) -> None:
    """Finds a seed that shows every mistake, and writes the case's folder."""
    folder = HERE / case.name
    for seed in SEEDS:
        model = build(config_of(case))
        randomize(model, seed)
        round_to(model, getattr(torch, case.dtype))
        try:
            text, tensors = golden(case, model, seed)
            last = text["prompts"][-1]
            check_mistakes(case, model, last["ids"], tensors[last["logits"]])
        except SeedRefused:
            continue
        save(case, model, folder)
        again = golden(case, reload(folder), seed)
        if again[0] != text or any(not torch.equal(again[1][k], v) for k, v in tensors.items()):
            raise AssertionError(f"{case.name}: reading the files back gives other numbers")
        (folder / "golden.json").write_text(compact(text))
        save_file(tensors, folder / "golden.safetensors")
        (folder / "golden.safetensors").chmod(0o644)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{case.name}: seed {seed}, min gap {text['min_gap']:.4f}, {size / 1024:.0f} KiB")
        return
    raise SystemExit(f"{case.name}: no seed will do")


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    wanted = sys.argv[1:]
    for case in CASES:
        if not wanted or case.name in wanted:
            make(case)


if __name__ == "__main__":
    main()
