"""Conversations, and which chat template renders which of them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def says(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content} | more


def call(name: str, arguments: Any, call_id: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, description: str, properties: Json, required: list[str]) -> Json:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {
        "name": name, "description": description, "parameters": parameters}}


WEATHER = tool("get_weather", "Weather at a place, e.g. \"Zürich\" <now>", {
    "place": {"type": "string", "description": "Name of the place — größere Städte"},
    "unit": {"type": "string", "enum": ["°C", "°F"]}}, ["place"])
SUM = tool("add", "Adds numbers & tells the sum", {
    "numbers": {"type": "array", "items": {"type": "number"}, "description": " Numbers "},
    "exact": {"type": ["boolean", "null"], "description": "No rounding"},
    "weights": {"type": "object", "additionalProperties": {"type": "number"}}}, [])
TOOLS = [WEATHER, SUM]

SYSTEM = says("system", "You are a pirate.\nAnswer in rhymes.")
HELLO = says("user", "Hello, who are you?")
ARR = says("assistant", "Arr, a pirate I be.")
MORE = says("user", "  And what do you want?\n")
ASK = says("user", "Weather in Zürich?")
ONE_CALL = says("assistant", None, tool_calls=[
    call("get_weather", {"place": "Zürich", "unit": "°C"}, "abcDEF123")])
TWO_CALLS = says("assistant", "Let me look.", tool_calls=[
    call("get_weather", {"place": "O'Brien \"X\""}, "abcDEF123"),
    call("add", {"numbers": [1, 2.5, -3], "exact": True, "weights": {}}, "abcDEF124")])
RESULT = says("tool", "{\"temp\": 21.5, \"sky\": \"klar ☀️\"}", tool_call_id="abcDEF123", name="get_weather")
SECOND = says("tool", "0.5", tool_call_id="abcDEF124", name="add")
SUNNY = says("assistant", "21.5 °C and clear. ☀️")

UNICODE = [
    says("system", "Antworte auf Deutsch. 请用中文。"),
    says("user", "Größe? 👩‍👩‍👧‍👦 🇫🇷 e\u0301 \u00a0nbsp\u3000wide \u200bzero-width עברית"),
    says("assistant", "你好，世界！\u2028 ¿Qué? <b>&amp;</b> 'quoted' \"too\""),
    says("user", "{{ not.a.template }} {% nor this %} <|im_end|> \\n"),
]
THOUGHTS = [
    HELLO, says("assistant", "<think>\nSomeone greets.\n</think>\n\nHello!"), ASK,
    says("assistant", "\n<think>\nLook it up.\n</think>\n\nOne moment.", tool_calls=ONE_CALL["tool_calls"]),
    RESULT,
]

#: By name: messages and tools.
CONVERSATIONS: dict[str, tuple[list[Json], list[Json] | None]] = {
    "user": ([HELLO], None),
    "system": ([SYSTEM, HELLO], None),
    "multi-turn": ([SYSTEM, HELLO, ARR, MORE], None),
    "no-system": ([HELLO, ARR, MORE], None),
    "ends-with-assistant": ([HELLO, ARR], None),
    "unicode": (UNICODE, None),
    "empty-content": ([says("system", ""), says("user", ""), says("assistant", ""), HELLO], None),
    "tools": ([SYSTEM, ASK], TOOLS),
    "one-call": ([SYSTEM, ASK, ONE_CALL, RESULT], TOOLS),
    "two-calls": ([ASK, TWO_CALLS, RESULT, SECOND], TOOLS),
    "after-tools": ([ASK, ONE_CALL, RESULT, SUNNY, MORE], [WEATHER]),
    "thoughts": (THOUGHTS, [WEATHER]),
    "late-system": ([HELLO, ARR, SYSTEM, MORE], None),
    "two-users": ([HELLO, MORE], None),
    "unknown-role": ([says("narrator", "Once upon a time"), HELLO], None),
    "null-content": ([HELLO, says("assistant", None), MORE], None),
    "no-messages": ([], None),
    "parts": ([says("system", [{"type": "text", "text": "Look."}]), says("user", [
        {"type": "text", "text": " What is this? "}, {"type": "image", "image": "x"},
        {"type": "text", "text": "And that?"}, {"type": "image_url", "image_url": {"url": "y"}}])], None),
    "bad-part": ([says("user", [{"type": "audio", "audio": "x"}])], None),
    "bad-content": ([says("user", 7)], None),
    "content-is-mapping": ([ASK, ONE_CALL, says("tool", {"temp": 21.5, "sky": "klar"}, tool_call_id="abcDEF123")], [WEATHER]),
    "arguments-are-text": ([ASK, says("assistant", "", tool_calls=[
        call("add", "{\"numbers\": [1, 2]}", "abcDEF125")])], [SUM]),
    "bad-call-id": ([ASK, says("assistant", None, tool_calls=[call("add", {}, "call_1")])], [SUM]),
}

CHAT = ["user", "system", "multi-turn", "no-system", "ends-with-assistant", "unicode", "empty-content",
        "late-system", "two-users", "unknown-role"]
WITH_TOOLS = [*CHAT, "tools", "one-call", "two-calls", "after-tools", "arguments-are-text"]
DOCUMENTS = [{"title": "Tides", "text": "The sea rises."}, {"text": "Ünïcode «text»"}]

#: By template: what it is, special tokens, conversations, and further cases as (name, conversation, changes).
TEMPLATES: dict[str, Json] = {
    "chatml": {"about": "ChatML in one line", "eos": "<|im_end|>", "use": [*CHAT, "null-content", "no-messages"],
               "more": [("continued", "ends-with-assistant", {"continue_final_message": True})]},
    "chatml-default-system": {"about": "a system message if there is none; line breaks within strings", "use": CHAT},
    "llama2": {"about": "[INST] and <<SYS>>; raises on roles out of turn", "bos": "<s>", "eos": "</s>", "use": [*CHAT, "no-messages"],
               "more": [("continued", "ends-with-assistant", {"continue_final_message": True})]},
    "llama3": {"about": "headers, trimmed contents, set in loops", "bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "use": [*CHAT, "null-content"],
               "more": [("continued", "ends-with-assistant", {"continue_final_message": True})]},
    "llama31-tools": {"about": "tools in the first user message or the system message, the date, built-in tools", "bos": "<|begin_of_text|>", "eos": "<|eot_id|>",
                      "use": [*WITH_TOOLS, "content-is-mapping", "no-messages"], "more": [
                          ("tools-in-system", "tools", {"extra": {"tools_in_user_message": False}}), ("date-given", "user", {"extra": {"date_string": "1 Jan 2000"}}),
                          ("built-in", "tools", {"extra": {"builtin_tools": ["brave_search", "code_interpreter", "get_weather"]}}),
                          ("built-in-call", "one-call", {"extra": {"builtin_tools": ["get_weather"]}}), ("custom-tools", "user", {"extra": {"custom_tools": [WEATHER]}})]},
    "qwen25-tools": {"about": "ChatML with tools in XML tags", "eos": "<|im_end|>", "use": [*WITH_TOOLS, "content-is-mapping"]},
    "qwen3-thinking": {"about": "thoughts of earlier turns are dropped; walks the messages backwards", "eos": "<|im_end|>", "use": [*WITH_TOOLS, "thoughts", "parts", "null-content"], "more": [
        ("not-thinking", "user", {"extra": {"enable_thinking": False}}), ("thinking", "thoughts", {"extra": {"enable_thinking": True}})]},
    "mistral-inst": {"about": "[INST], a system message only first", "bos": "<s>", "eos": "</s>", "use": [*CHAT, "one-call"]},
    "mistral-tools": {"about": "[AVAILABLE_TOOLS] before the last user message; nine-letter call ids", "bos": "<s>", "eos": "</s>", "use": [*WITH_TOOLS, "content-is-mapping", "bad-call-id"]},
    "gemma": {"about": "raises on a system message", "bos": "<bos>", "eos": "<eos>", "use": CHAT},
    "gemma-parts": {"about": "system message in the first user turn; contents as text or parts", "bos": "<bos>", "eos": "<eos>", "use": [*CHAT, "parts", "bad-part", "bad-content"]},
    "deepseek": {"about": "one line, a namespace, wide bars", "bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "use": [*WITH_TOOLS, "thoughts"]},
    "zephyr": {"about": "blocks on their own lines, which trim_blocks removes", "bos": "<s>", "eos": "</s>", "use": CHAT},
    "phi-tools": {"about": "tools as a text in the system message; none and undefined contents", "eos": "<|endoftext|>", "use": [*CHAT, "null-content"], "more": [
        ("tools-in-message", "system", {"messages": [says("system", "Help.", tools="[{\"name\": \"x\"}]"), HELLO]}), ("no-content", "user", {"messages": [HELLO, {"role": "assistant"}]})]},
    "hermes-macros": {"about": "tools as Python signatures, by a recursive macro", "bos": "<s>", "eos": "<|im_end|>", "use": [*WITH_TOOLS, "content-is-mapping"]},
    "documents": {"about": "documents, the date, tojson of all tools", "eos": "<|end_of_text|>", "use": [*CHAT, "tools", "null-content"], "more": [
        ("documents", "user", {"documents": DOCUMENTS}), ("documents-and-tools", "no-system", {"documents": DOCUMENTS, "tools": TOOLS}), ("controls", "user", {"extra": {"controls": {"length": "long", "x": 1.5}}})]},
    "dates": {"about": "strftime_now in many forms", "use": ["user", "multi-turn"]},
    "generation": {"about": "{% generation %} blocks, which only mark text", "eos": "</s>", "use": ["user", "multi-turn", "no-system", "unicode", "ends-with-assistant"]},
    "loop-controls": {"about": "break, continue, else, recursive, cycle and changed", "use": ["user", "multi-turn", "one-call", "unicode", "null-content", "no-messages"]},
    "parts": {"about": "contents as parts, through a macro that counts images in a namespace", "eos": "<|im_end|>", "use": [*CHAT, "parts", "bad-part", "bad-content", "null-content", "content-is-mapping"],
              "more": [("numbered", "parts", {"extra": {"add_vision_id": True}})]},
    "set-blocks": {"about": "set blocks, macros, call, with, filter", "use": ["user", "multi-turn", "tools", "unicode"], "more": [("named", "user", {"extra": {"name": "Ünï"}})]},
    "whitespace": {"about": "comments, raw, dashes and pluses, blanks and blank lines", "use": ["user", "multi-turn"]},
}
