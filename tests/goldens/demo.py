"""Writes the goldens of the demo model in models/demo: tokenizer, chat template, greedy answers.

    python tests/goldens/demo.py

To be run again whenever the demo model was trained again. The formats are in README.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import chat
from chat_cases import WITH_TOOLS
from demo_cases import PROMPTS, TEXTS
from make import Greedy, compact, reload

HERE = Path(__file__).parent
MODEL = HERE / "../../models/demo"
GREEDY_TOKENS = 40
#: Prompts on whose way two tokens are nearer to each other than this are left out.
MIN_GAP = 0.01

Json = dict[str, Any]


def write_tokenizer(tokenizer: Tokenizer) -> None:
    """Ids and texts by the tokenizers library, checked against transformers' tokenizer."""
    slow = AutoTokenizer.from_pretrained(MODEL)
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        assert slow.encode(text) == ids, text
        assert slow.encode(text, add_special_tokens=False) == plain, text
        cases.append({
            "text": text, "ids": ids, "ids_without_special": plain,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
        })
    digest = hashlib.sha256((MODEL / "tokenizer.json").read_bytes()).hexdigest()
    value = {"format": 1, "tokenizer_sha256": digest, "cases": cases}
    (HERE / "tokenizer.json").write_text(compact(value))
    print(f"tokenizer: {len(cases)} texts")


def write_chat() -> None:
    """The demo model's template over the conversations that all templates with tools see."""
    source = (MODEL / "chat_template.jinja").read_text()
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    tokens = {name: config.get(name) for name in ("bos_token", "eos_token")}
    continued = ("continued", "ends-with-assistant", {"continue_final_message": True})
    cases = [chat.case_of(name, name, {}) for name in [*WITH_TOOLS, "null-content", "no-messages"]]
    cases += [chat.case_of("no-generation-prompt", "multi-turn", {"add_generation_prompt": False}),
              chat.case_of(*continued)]
    cases = [case | chat.render(source, case, tokens) for case in cases]
    about = "the template in models/demo"
    chat.write({"name": "demo", "about": about, "template": source, **tokens, "now": chat.NOW, "cases": cases})


@torch.no_grad()
def greedy(model: transformers.PreTrainedModel, ids: list[int]) -> tuple[list[int], list[float]]:
    """Tokens and by how much each was the best, through the end of the answer and beyond."""
    chosen, gaps = Greedy(), []
    out = model(torch.tensor([ids]), use_cache=True)
    while len(chosen.tokens) < GREEDY_TOKENS:
        best = out.logits[0, -1].topk(2).values
        gaps.append(round(float(best[0] - best[1]), 4))
        token = chosen.take(out.logits[0, -1])
        out = model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
    return chosen.tokens, gaps


def write_answers(tokenizer: Tokenizer) -> None:
    """Greedy continuations with the bf16 weights of the files, computed in 32-bit floats."""
    model = reload(MODEL)
    template = AutoTokenizer.from_pretrained(MODEL)
    ends = json.loads((MODEL / "generation_config.json").read_text())["eos_token_id"]
    prompts = []
    for name, prompt in PROMPTS:
        text = prompt if isinstance(prompt, str) else template.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokens, gaps = greedy(model, ids)
        if min(gaps) < MIN_GAP:
            print(f"  {name}: left out, gap {min(gaps)} at token {gaps.index(min(gaps))}")
            continue
        end = next((at for at, token in enumerate(tokens) if token in ends), None)
        answer = tokenizer.decode(tokens[:end], skip_special_tokens=False)
        prompts.append({
            "name": name, "messages": None if isinstance(prompt, str) else prompt, "text": text, "ids": ids,
            "greedy": tokens, "end": end, "answer": answer, "min_gap": min(gaps),
        })
        print(f"  {name}: {len(ids)} tokens, end {end}, gap {min(gaps)}: {answer[:60]!r}")
    value = {
        "format": 1, "transformers": transformers.__version__, "weights_dtype": "bfloat16", "computed_in": "float32",
        "greedy_method": "use_cache=True: one forward over the prompt, then one per token",
        "greedy_ignores_eos": True, "eos_token_ids": ends, "min_gap": min(p["min_gap"] for p in prompts),
        "weights_sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                           for path in sorted(MODEL.glob("*.safetensors"))},
        "prompts": prompts,
    }
    (HERE / "demo.json").write_text(compact(value))
    print(f"demo: {len(prompts)} prompts, min gap {value['min_gap']}")


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    write_tokenizer(tokenizer)
    chat.chat_template_utils.datetime = chat.FrozenDatetime
    write_chat()
    write_answers(tokenizer)


if __name__ == "__main__":
    main()
