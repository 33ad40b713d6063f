"""Writes the trained model as a Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import tokenizer as tok
from model import Model, Shape

HERE = Path(__file__).parent


def config(s: Shape) -> dict:
    """`config.json` in the form that models on the hub have."""
    return {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": tok.IM_END, "head_dim": s.head_dim,
        "hidden_act": "silu", "hidden_size": s.hidden, "initializer_range": 0.02, "intermediate_size": s.ffn, "max_position_embeddings": s.context, "max_window_layers": s.layers,
        "model_type": "qwen3", "num_attention_heads": s.heads, "num_hidden_layers": s.layers, "num_key_value_heads": s.kv_heads, "pad_token_id": tok.PAD, "rms_norm_eps": s.eps,
        "rope_scaling": None, "rope_theta": s.theta, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
        "vocab_size": s.vocab}


GENERATION = {"do_sample": True, "eos_token_id": [tok.IM_END, tok.PAD], "pad_token_id": tok.PAD, "temperature": 0.3, "top_k": 20, "top_p": 0.9}


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save(model: Model, tokenizer: Tokenizer, out: Path) -> None:
    """Everything but the model card and the training record."""
    out.mkdir(parents=True, exist_ok=True)
    save_shards(model.huggingface(), out)
    dump(out / "config.json", config(model.shape))
    dump(out / "generation_config.json", GENERATION)
    tok.save(tokenizer, out, model.shape.context)
    shutil.copy(HERE / "chat_template.jinja", out / "chat_template.jinja")
    shutil.copy(HERE / "LICENSE.wordnet", out / "LICENSE.wordnet")


def save_shards(weights: dict[str, torch.Tensor], out: Path) -> None:
    """Two files of about the same size, and the index that says which tensor is where."""
    total = sum(w.nbytes for w in weights.values())
    shards, size = [{}, {}], 0
    for name, w in weights.items():
        shards[int(size + w.nbytes / 2 > total / 2)][name] = w
        size += w.nbytes
    where = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-00002.safetensors"
        save_file(shard, out / file, metadata={"format": "pt"})
        (out / file).chmod(0o644)
        where |= dict.fromkeys(shard, file)
    dump(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def save_card(out: Path, record: dict) -> None:
    text = (HERE / "card.md").read_text()
    for key, value in record.items():
        text = text.replace("{{" + key + "}}", str(value))
    (out / "README.md").write_text(text)
