"""The tiny models of the goldens: one per family and per thing that a forward pass can get wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VOCAB = 199
PROMPT_LENGTHS = (1, 17, 43)


@dataclass(frozen=True)
class Case:
    """One model: how it is configured, how its files are written, and which mistakes it must show.

    `old_form` is the part of config.json that older transformers wrote in place of
    `rope_parameters`; `None` leaves the file as transformers 5 writes it. Each of `mistakes` is a
    change of the configuration after which the logits must differ visibly.
    """

    name: str
    about: str
    model_type: str
    dtype: str
    config: dict[str, Any]
    old_form: dict[str, Any] | None = None
    old_form_drops: tuple[str, ...] = ()
    mistakes: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompt_lengths: tuple[int, ...] = PROMPT_LENGTHS
    sharded: bool = False
    generation: dict[str, Any] | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether the rotation of a row depends on the length of the forward call."""
        return self.config["rope_parameters"]["rope_type"] == "dynamic"


def shape(**changes: Any) -> dict[str, Any]:
    """The size that all models share, with changes."""
    return {
        "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2,
    } | changes


def rope(kind: str = "default", theta: float = 10_000.0, **more: Any) -> dict[str, Any]:
    """`rope_parameters` as transformers 5 has them."""
    return {"rope_type": kind, "rope_theta": theta} | more


PLAIN = rope()

LLAMA = [
    Case(
        "llama2-mha", "Llama 2: as many key/value heads as query heads; fp16 weights",
        "llama", "float16",
        shape(num_key_value_heads=4, rope_parameters=PLAIN),
        # Llama 2's file names no head_dim, and at first not even rope_theta.
        old_form={"rope_scaling": None, "pretraining_tp": 1}, old_form_drops=("head_dim",),
        mistakes={"theta": {"rope_parameters": rope(theta=20_000.0)}, "eps": {"rms_norm_eps": 1e-2}},
        generation={"bos_token_id": 1, "eos_token_id": 2, "do_sample": True, "temperature": 0.6,
                    "top_p": 0.9},
    ),
    Case(
        "llama3-gqa", "Llama 3.1: grouped heads and its rope scaling; sharded, two end tokens",
        "llama", "bfloat16",
        shape(num_hidden_layers=3, hidden_size=32, rope_parameters=rope(
            "llama3", 9_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64)),
        old_form={"rope_theta": 9_000.0, "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3"}},
        mistakes={"no scaling": {"rope_parameters": rope(theta=9_000.0)},
                  "no smooth passage": {"rope_parameters": rope(
                      "llama3", 9_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=1.001,
                      original_max_position_embeddings=64)}},
        sharded=True,
        generation={"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": True,
                    "temperature": 0.6, "top_p": 0.9},
    ),
    Case(
        "llama-linear", "Linear rope scaling in its oldest form (`type`); fp32 weights",
        "llama", "float32",
        shape(hidden_size=32, head_dim=16, rope_parameters=rope("linear", factor=4.0)),
        old_form={"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        mistakes={"no scaling": {"rope_parameters": PLAIN}},
    ),
    Case(
        "llama-dynamic", "Dynamic NTK rope scaling, prompts on both sides of the original context",
        "llama", "bfloat16",
        shape(max_position_embeddings=32, rope_parameters=rope("dynamic", factor=4.0)),
        old_form={"rope_theta": 10_000.0, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        mistakes={"no scaling": {"rope_parameters": PLAIN}},
        prompt_lengths=(1, 17, 32, 43),
    ),
    Case(
        "llama-yarn", "YaRN in the new form: own betas, a ramp that is not rounded, attention_factor",
        "llama", "bfloat16",
        shape(rope_parameters=rope(
            "yarn", 2_000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=4.0,
            beta_slow=0.25, truncate=False, attention_factor=1.25)),
        mistakes={"no scaling": {"rope_parameters": rope(theta=2_000.0)},
                  "rounded ramp": {"rope_parameters": rope(
                      "yarn", 2_000.0, factor=4.0, original_max_position_embeddings=32,
                      beta_fast=4.0, beta_slow=0.25, truncate=True, attention_factor=1.25)},
                  "attention factor": {"rope_parameters": rope(
                      "yarn", 2_000.0, factor=4.0, original_max_position_embeddings=32,
                      beta_fast=4.0, beta_slow=0.25, truncate=False)}},
    ),
    Case(
        "llama-bias", "Biases on all four attention projections and in the MLP; new form, fp16",
        "llama", "float16",
        shape(hidden_size=32, attention_bias=True, mlp_bias=True, rope_parameters=rope(theta=5_000.0)),
        mistakes={"no attention bias": {"attention_bias": False}, "no MLP bias": {"mlp_bias": False}},
    ),
    Case(
        "llama-own-head", "config.json ties the output projection, and the weights hold another one",
        "llama", "bfloat16",
        shape(hidden_size=32, rope_parameters=PLAIN),
        old_form={"rope_theta": 10_000.0, "tie_word_embeddings": True},
        mistakes={"tied": {"tie_word_embeddings": True}},
    ),
]

MISTRAL = [
    Case(
        "mistral-window", "A sliding window of 8 tokens on every layer",
        "mistral", "bfloat16",
        shape(sliding_window=8, rope_parameters=PLAIN),
        old_form={"rope_theta": 10_000.0}, old_form_drops=("head_dim",),
        mistakes={"no window": {"sliding_window": None}, "off by one": {"sliding_window": 9}},
        generation={"bos_token_id": 1, "eos_token_id": 2},
    ),
    Case(
        "mistral-wide-heads", "Mistral Nemo: no window, heads wider than hidden / heads; new form",
        "mistral", "bfloat16",
        shape(hidden_size=48, sliding_window=None, rope_parameters=rope(theta=1_000_000.0)),
        mistakes={"theta": {"rope_parameters": PLAIN}, "a window": {"sliding_window": 8}},
    ),
]

QWEN = [
    Case(
        "qwen2-tied", "Biases on queries, keys and values, tied embeddings, a window that is off",
        "qwen2", "bfloat16",
        shape(head_dim=None, tie_word_embeddings=True, sliding_window=8, use_sliding_window=False,
              max_window_layers=1, rms_norm_eps=1e-6, rope_parameters=rope(theta=100_000.0)),
        old_form={"rope_theta": 100_000.0, "sliding_window": 8},
        old_form_drops=("layer_types", "head_dim"),
        mistakes={"window on": {"use_sliding_window": True},
                  "theta": {"rope_parameters": PLAIN}},
        generation={"bos_token_id": 1, "eos_token_id": [2, 1], "pad_token_id": 1,
                    "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
                    "do_sample": True},
    ),
    Case(
        "qwen2-window", "A window of 7 tokens from layer 1 on (max_window_layers); sharded",
        "qwen2", "bfloat16",
        shape(head_dim=None, num_hidden_layers=3, sliding_window=7, use_sliding_window=True,
              max_window_layers=1, rms_norm_eps=1e-6, rope_parameters=PLAIN),
        old_form={"rope_theta": 10_000.0}, old_form_drops=("layer_types", "head_dim"),
        mistakes={"no window": {"use_sliding_window": False}, "off by one": {"sliding_window": 8},
                  "one layer less": {"max_window_layers": 2}, "all layers": {"max_window_layers": 0}},
        sharded=True,
    ),
    Case(
        "qwen3", "Norms on each head's queries and keys, heads wider than hidden / heads; new form",
        "qwen3", "bfloat16",
        shape(hidden_size=48, rms_norm_eps=1e-6, rope_parameters=rope(theta=1_000_000.0)),
        mistakes={"theta": {"rope_parameters": PLAIN}},
        generation={"bos_token_id": 1, "eos_token_id": [2, 1], "pad_token_id": 1, "do_sample": True,
                    "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    Case(
        "qwen3-yarn", "YaRN with nothing but a factor and the original context, tied embeddings; fp32",
        "qwen3", "float32",
        shape(hidden_size=32, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=rope(
            "yarn", 1_000.0, factor=4.0, original_max_position_embeddings=32)),
        old_form={"rope_theta": 1_000.0, "rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        old_form_drops=("layer_types",),
        mistakes={"no scaling": {"rope_parameters": rope(theta=1_000.0)},
                  "attention factor": {"rope_parameters": rope(
                      "yarn", 1_000.0, factor=4.0, original_max_position_embeddings=32,
                      attention_factor=1.0)}},
    ),
    Case(
        "qwen3-layer-types", "Windows by layer_types, which wins over max_window_layers; with bias",
        "qwen3", "bfloat16",
        shape(num_hidden_layers=3, hidden_size=32, rms_norm_eps=1e-6, attention_bias=True,
              sliding_window=6, use_sliding_window=True, max_window_layers=2,
              layer_types=["sliding_attention", "full_attention", "sliding_attention"],
              rope_parameters=PLAIN),
        mistakes={"max_window_layers": {"layer_types": None}, "no bias": {"attention_bias": False},
                  "no window": {"layer_types": ["full_attention"] * 3}},
    ),
]

CASES = LLAMA + MISTRAL + QWEN
