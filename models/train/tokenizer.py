"""Trains the tokenizer: byte-level BPE with Qwen's pre-tokenizer, so that digits are single tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PAD, IM_START, IM_END = range(3)
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Text that the dialogues lack, so that code, other scripts and emoji do not fall apart into single bytes.
BREADTH = """
def main():
    print("hello, world")
    return 0
for (int i = 0; i < n; i++) { sum += a[i]; }
fn main() -> Result<(), Error> { let x: Vec<u8> = Vec::new(); Ok(()) }
{"messages": [{"role": "user", "content": "hello"}], "stream": true, "max_tokens": 64, "temperature": 0.7}
https://example.com/v1/chat/completions?id=42&name=value#top
àáâãäåæçèéêëìíîïñòóôõöøùúûüýß ÀÉÈÖÜÄ Grüße, señor, façade, naïve, Ångström, São Paulo, Kraków, İstanbul
Привет, как дела? Γειά σου κόσμε. 你好，世界。こんにちは世界。안녕하세요 세계. שלום עולם. مرحبا بالعالم. नमस्ते दुनिया
😀 😂 ❤️ 👍 🎉 🚀 👩‍💻 👨‍👩‍👧‍👦 🇫🇷 🏳️‍🌈 ✅ → ← ≤ ≥ × ÷ € £ ° … — – “ ” ‘ ’ •
"""


def train(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, ignore_merges=False))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    plain = ("\n".join(part for part in text.replace("<|im_end|>", "").split("<|im_start|>")) for text in texts)
    tokenizer.train_from_iterator([*plain, *[BREADTH] * 200], trainer)
    for role in ("system", "user", "assistant"):
        assert len(tokenizer.encode(role).ids) == 1, f"{role} must be one token: the loss mask relies on it"
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    out = []
    for at in range(0, len(texts), 20_000):
        out += [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch(texts[at : at + 20_000])]
    return out


def answer_mask(ids: np.ndarray, assistant: int) -> np.ndarray:
    """True for the tokens that the assistant writes, its `<|im_end|>` included."""
    mask = np.zeros(len(ids), dtype=bool)
    starts = np.flatnonzero((ids[:-1] == IM_START) & (ids[1:] == assistant)) + 3
    ends = np.flatnonzero(ids == IM_END)
    for start in starts:
        mask[start : ends[np.searchsorted(ends, start)] + 1] = True
    return mask


def save(tokenizer: Tokenizer, out: Path, context: int) -> None:
    tokenizer.save(str(out / "tokenizer.json"))
    added = {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} for i, t in enumerate(SPECIAL)}
    config = {
        "added_tokens_decoder": added, "additional_special_tokens": SPECIAL[1:], "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "errors": "replace", "model_max_length": context, "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
