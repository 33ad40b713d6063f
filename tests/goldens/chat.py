"""Writes the chat-template goldens: prompts as transformers' own renderer makes them.

    python tests/goldens/chat.py

Templates are in templates/, conversations in chat_cases.py, single expressions in
chat_expressions.py; the format is in README.md.
"""

from __future__ import annotations

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils import chat_template_utils

from chat_cases import CONVERSATIONS, TEMPLATES, TOOLS
from chat_expressions import GROUPS

HERE = Path(__file__).parent
OUT = HERE / "chat"
#: 24 July 2024, 09:05:03 UTC: what `strftime_now` calls now.
NOW = 1_721_811_903
#: What single expressions can refer to.
EXPRESSION_CONVERSATION = "one-call"
EXPRESSION_EXTRA = {"extra_number": 1.0, "extra_list": [1, 2.5, None, True, "ü"]}

Json = dict[str, Any]


class FrozenDatetime(datetime.datetime):
    """Makes `strftime_now` deterministic."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None)


def render(template: str, case: Json, tokens: Json) -> Json:
    """`expected`, or `expected_error` if the template does not get through."""
    kwargs = {key: value for key, value in tokens.items() if value is not None}
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[copy.deepcopy(case["messages"])],
            tools=copy.deepcopy(case["tools"]),
            documents=copy.deepcopy(case.get("documents")),
            chat_template=template,
            add_generation_prompt=case["add_generation_prompt"],
            continue_final_message=case.get("continue_final_message", False),
            **kwargs,
            **case["extra"],
        )
    except jinja2.exceptions.TemplateError as error:
        # `raise_exception` raises the base class, the library itself only classes derived from it.
        kind = "raised" if type(error) is jinja2.exceptions.TemplateError else "failed"
        return {"expected_error": {"kind": kind, "message": str(error)}}
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return {"expected_error": {"kind": "failed", "message": f"{type(error).__name__}: {error}"}}
    return {"expected": rendered[0]}


def case_of(name: str, conversation: str, changes: Json) -> Json:
    messages, tools = CONVERSATIONS[conversation]
    wants_answer = bool(messages) and messages[-1]["role"] != "assistant"
    return {"name": name, "messages": messages, "tools": tools,
            "add_generation_prompt": wants_answer, "extra": {}} | changes


def template_file(name: str, spec: Json) -> Json:
    """All cases of one template."""
    source = (HERE / "templates" / f"{name}.jinja").read_text()
    tokens = {"bos_token": spec.get("bos"), "eos_token": spec.get("eos")}
    cases = [case_of(conversation, conversation, {}) for conversation in spec["use"]]
    cases.append(case_of("no-generation-prompt", "multi-turn", {"add_generation_prompt": False}))
    cases += [case_of(*more) for more in spec.get("more", [])]
    cases = [case | render(source, case, tokens) for case in cases]
    return {"name": name, "about": spec["about"], "template": source, **tokens, "now": NOW, "cases": cases}


def expression_file(name: str, about: str, templates: list[str]) -> Json:
    """One template per case, over the same conversation."""
    tokens = {"bos_token": "<s>", "eos_token": None}
    messages, _ = CONVERSATIONS[EXPRESSION_CONVERSATION]
    common = {"messages": messages, "tools": TOOLS, "add_generation_prompt": True, "extra": EXPRESSION_EXTRA}
    cases = [
        {"name": f"{index}: {template}", "template": template} | render(template, common, tokens)
        for index, template in enumerate(templates)
    ]
    return {"name": name, "about": about, "template": None, **tokens, "now": NOW, "common": common, "cases": cases}


def dump(path: Path, value: Json) -> None:
    """JSON with one line per field, and per field of a case."""
    def line(inner: Any) -> str:
        return json.dumps(inner, ensure_ascii=False).replace("\u2028", "\\u2028")

    head = [f" {line(key)}: {line(field)}" for key, field in value.items() if key != "cases"]
    cases = [
        "  {\n" + ",\n".join(f"   {line(key)}: {line(field)}" for key, field in case.items()) + "\n  }"
        for case in value["cases"]
    ]
    path.write_text("{\n" + ",\n".join(head) + ',\n "cases": [\n' + ",\n".join(cases) + "\n ]\n}\n")


def write(value: Json) -> None:
    errors = [case for case in value["cases"] if "expected_error" in case]
    failed = sum(case["expected_error"]["kind"] == "failed" for case in errors)
    path = OUT / f"{value['name']}.json"
    dump(path, value)
    assert json.loads(path.read_text()) == json.loads(json.dumps(value))
    print(f"{value['name']}: {len(value['cases'])} cases, {len(errors) - failed} raised, {failed} failed")


def main() -> None:
    chat_template_utils.datetime = FrozenDatetime
    OUT.mkdir(exist_ok=True)
    for name, spec in TEMPLATES.items():
        write(template_file(name, spec))
    for name, (about, templates) in GROUPS.items():
        write(expression_file(name, about, templates))


if __name__ == "__main__":
    main()
