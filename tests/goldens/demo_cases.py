"""What the demo model's goldens are made of: texts to tokenize, and prompts to continue."""

from __future__ import annotations

from chat_cases import ARR, HELLO, MORE, SYSTEM, Json, says

TEXTS = [
    "", " ", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "  two  spaces   three    four ",
    "tabs\tand\t\ttabs", "line\nbreaks\n\nand\r\ncarriage\r\rreturns\n", "\n", "\n\n\n   \n", "trailing blanks   ",
    "I'm we'll you've HE'S they'd don't 'tis", "1234567890 3.14159 1,000,000 -42 1e-9 0x1F", "７８９ ٣٤ ½ ² Ⅷ",
    "Grüße aus Zürich, señor! Ça va? Ångström naïve façade", "e\u0301 vs \u00e9; \ufb01 vs fi; \u212b vs \u00c5", "Привет, как дела? Γειά σου κόσμε.",
    "你好，世界。こんにちは世界。안녕하세요 세계", "שלום עולם، مرحبا بالعالم नमस्ते दुनिया ไทย", "😀😂❤️👍🏽🎉", "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪 1️⃣",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u2028line\u2029para\u0085next\ufeffbom", "\u0000\u0001\u001f\u007f\u0080", "\ud7ff\ue000\ufffd\U0010ffff 𝒳𝔘 𐍈",
    "def f(x: int) -> str:\n    return f\"{x:>4}\" if x else ''  # comment\n", "fn main() {\n\tlet v: Vec<_> = (0..=9).map(|i| i * i).collect();\n}", "{\"a\": [1, 2.5, null, true], \"b\": {\"ü\": \"\\n\"}}",
    "https://example.com/v1/chat?x=1&y=%20#top user@example.com", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|im_end|>b <|im_end|> c<|im_end|><|im_end|>",
    "<|im_start|", "<|IM_START|> <| im_start |> <|im_start|>", "systemuserassistant system user assistant", "!!!???...,,,;;;:::---___***", "→←≤≥×÷€£°…—–“”‘’•", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Pneumonoultramicroscopicsilicovolcanoconiosis", "What is the KV cache?", "CamelCaseWords snake_case_words kebab-case-words UPPER lower MiXeD", "a\u0300\u0301\u0302\u0303 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢ zalgo", "mixed 中文and English混合 текст123",
]

NOTES = "\n".join(f"The code of {name} is {1000 + 137 * index}." for index, name in enumerate(
    ["Anna", "Ben", "Carla", "David", "Emma", "Frank", "Greta", "Hugo", "Ida", "Jonas"]))

#: Name, then messages, or a text that is continued as it is.
PROMPTS: list[tuple[str, list[Json] | str]] = [
    ("hello", [says("user", "Hello!")]),
    ("definition", [says("user", "What is a violin?")]),
    ("sum", [says("user", "what is 23 + 58")]),
    ("count", [says("user", "Count from 1 to 12.")]),
    ("list", [says("user", "List five animals.")]),
    ("story", [says("user", "Tell me a story about a fox.")]),
    ("elephants", [says("user", "Tell me about elephants.")]),
    ("prefill-decode", [says("user", "Why does Baton separate prefill and decode?")]),
    ("how-it-works", [says("user", "How does Baton work?")]),
    ("cache", [says("user", "What is the KV cache?")]),
    ("multi-turn", [says("user", "What is 7 times 8?"), says("assistant", "7 times 8 is 56."), says("user", "and plus 4?")]),
    ("name", [says("user", "My name is Maria."), says("assistant", "Hello, Maria! How can I help you?"), says("user", "What is an owl?"),
              says("assistant", "An owl is a bird with large eyes that hunts at night."), says("user", "What is my name?")]),
    ("notes", [says("user", NOTES + "\nWhat is the code of Emma?")]),
    ("pirate", [SYSTEM, HELLO, ARR, MORE]),
    ("unicode", [says("user", "Größe? 👩‍👩‍👧‍👦 你好")]),
    ("text", "The KV cache holds the keys and values of all tokens"),
    ("one-token", "The"),
]
