"""The models of the live comparison: one of each family, and one of full size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    name: str
    model_type: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    tokens: int = 700
    greedy: int = 64
    is_large: bool = False


def shape(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    } | changes


LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}

FAMILIES = [
    Family("llama", "llama", "LlamaForCausalLM", shape()),
    Family("llama-f16", "llama", "LlamaForCausalLM", shape(), dtype="float16"),
    Family("llama-d64", "llama", "LlamaForCausalLM", shape(head_dim=64, num_attention_heads=16,
           num_key_value_heads=16)),
    Family("mistral-window", "mistral", "MistralForCausalLM", shape(sliding_window=128)),
    Family("qwen2", "qwen2", "Qwen2ForCausalLM", {
        k: v for k, v in shape(num_attention_heads=14, num_key_value_heads=2, hidden_size=896,
                               tie_word_embeddings=True).items() if k != "head_dim"}),
    Family("qwen3", "qwen3", "Qwen3ForCausalLM", shape(num_attention_heads=16,
           num_key_value_heads=8)),
    Family("llama-3.1-8b", "llama", "LlamaForCausalLM", shape(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131_072,
        rope_parameters=LLAMA3_ROPE,
    ), tokens=300, greedy=32, is_large=True),
]
