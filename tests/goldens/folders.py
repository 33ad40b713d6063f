"""Writes the folder goldens: small files that folders are known to have, and how transformers reads them.

    python tests/goldens/folders.py

Each case lays some files over a common folder. Files that transformers itself doesn't read (a
byte-order mark, `chat_template.json` alone) are compared with `read_as`: the files that say the same
in a way that it does. The format is in README.md.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig

Json = dict[str, Any]
Files = dict[str, str]

OUT = Path(__file__).parent / "folders.json"
MARK = "\ufeff"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi\r\nthere"},
]
RAW = "a<|extra|>b <|im_end|>"

CHATML = (
    "{% for message in messages %}\n"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}\n"
    "{{ '<|im_start|>assistant\n' }}\n"
    "{% endif %}\n"
)
WITH_CRLF = CHATML.replace("\n", "\r\n")
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300,
          "max_position_embeddings": 64, "eos_token_id": 256}
TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
EXTRA = {"content": "<|extra|>", "special": True, "lstrip": False, "rstrip": False,
         "normalized": False, "single_word": False}


def vocabulary() -> str:
    """A `tokenizer.json`: the bytes, and three special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return tokenizer.to_str()


def tokenizer_config(**changes: Any) -> str:
    return json.dumps(TOKENIZER | changes)


def config(**changes: Any) -> str:
    return json.dumps(CONFIG | changes)


CASES: dict[str, tuple[Files, Files | None]] = {
    "plain": ({"tokenizer_config.json": tokenizer_config(chat_template=CHATML)}, None),
    "eos-0-in-both-configs": (
        {"config.json": config(eos_token_id=0), "generation_config.json": '{"eos_token_id": 0}',
         "tokenizer_config.json": tokenizer_config(chat_template=CHATML)}, None),
    "eos-lists": (
        {"config.json": config(eos_token_id=[256, 7]),
         "generation_config.json": '{"eos_token_id": [256, 258]}',
         "tokenizer_config.json": tokenizer_config(chat_template=CHATML)}, None),
    "eos-as-object": (
        {"tokenizer_config.json": tokenizer_config(
            eos_token={"__type": "AddedToken"} | EXTRA | {"content": "<|endoftext|>"},
            chat_template=CHATML)}, None),
    "crlf-in-tokenizer-config": (
        {"tokenizer_config.json": tokenizer_config(chat_template=WITH_CRLF)}, None),
    "crlf-in-jinja": (
        {"tokenizer_config.json": tokenizer_config(), "chat_template.jinja": WITH_CRLF}, None),
    "lone-cr": (
        {"tokenizer_config.json": tokenizer_config(chat_template=CHATML.replace("\n", "\r"))}, None),
    "escaped-crlf": (
        {"tokenizer_config.json": tokenizer_config(
            chat_template="{% for m in messages %}{{ m.content + '\\r\\n' }}{% endfor %}")}, None),
    "jinja-wins": (
        {"tokenizer_config.json": tokenizer_config(chat_template="no"),
         "chat_template.jinja": CHATML}, None),
    "chat-template-json-alone": (
        {"tokenizer_config.json": tokenizer_config(),
         "chat_template.json": json.dumps({"chat_template": CHATML})},
        {"tokenizer_config.json": tokenizer_config(chat_template=CHATML)}),
    "mark-in-tokenizer-config": (
        {"tokenizer_config.json": MARK + tokenizer_config(chat_template=CHATML)},
        {"tokenizer_config.json": tokenizer_config(chat_template=CHATML)}),
    "marks-everywhere": (
        {"config.json": MARK + config(), "generation_config.json": MARK + '{"eos_token_id": 9}',
         "tokenizer_config.json": MARK + tokenizer_config(chat_template=CHATML)},
        {"generation_config.json": '{"eos_token_id": 9}',
         "tokenizer_config.json": tokenizer_config(chat_template=CHATML)}),
    "token-of-the-config-alone": (
        {"tokenizer_config.json": tokenizer_config(
            added_tokens_decoder={"259": EXTRA}, chat_template=CHATML)}, None),
    "end-token-of-the-config-alone": (
        {"tokenizer_config.json": tokenizer_config(
            eos_token="<|extra|>", chat_template=CHATML + "{{ eos_token }}")}, None),
    "more-special-tokens": (
        {"tokenizer_config.json": tokenizer_config(
            additional_special_tokens=["<|extra|>"], chat_template=CHATML)}, None),
}


def ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]


def read(files: Files) -> Json:
    """What transformers makes of a folder with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_bytes(text.encode())
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = PretrainedConfig.from_pretrained(folder)
        generation = GenerationConfig()
        if "generation_config.json" in files:
            generation = GenerationConfig.from_pretrained(folder)
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    ends = ids(generation.eos_token_id) + ids(model.eos_token_id) + ids(tokenizer.eos_token_id)
    return {"prompt": text, "prompt_ids": tokenizer(text, add_special_tokens=False).input_ids,
            "raw_ids": tokenizer(RAW).input_ids, "end_tokens": list(dict.fromkeys(ends))}


def main() -> None:
    transformers.logging.set_verbosity_error()
    common = {"config.json": config(), "tokenizer.json": vocabulary(),
              "tokenizer_config.json": tokenizer_config()}
    cases = [
        {"name": name, "files": files, "read_by_transformers": read_as is None}
        | read(common | (files if read_as is None else read_as))
        for name, (files, read_as) in CASES.items()
    ]
    value = {"transformers": transformers.__version__, "conversation": CONVERSATION, "raw": RAW,
             "common": common, "cases": cases}
    OUT.write_text(json.dumps(value, indent=1) + "\n")
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
