"""Records what transformers makes of a chat template that is not part of the project.

    python tools/oracle/record_outside_template.py          (in the oracle environment)

Reads nemotron3-chat-template.jinja in the folder LOGITLAB_SHARED (default: shared/ beside the
project) and writes tests/data/templates/nemotron3.json: conversations, settings, and of every
rendering its length and SHA-256, so that the template's text need not be kept.
"""

import hashlib
import json
import os
import pathlib
import sys

import record_templates
from record_templates import ADD, VERSIONS, WEATHER, call

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_NAME = "nemotron3-chat-template.jinja"
RECORDING = record_templates.FOLDER / "nemotron3.json"

DEEP = {
    "name": "plan",  # without the "function" around it
    "description": "  Plans <a> \"trip\" & more.\n",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "stops": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "mode": {"type": ["string", "null"], "enum": ["train", "ferry", None], "default": "train"},
            "nested": {"type": "object", "properties": {"x": {"type": "number"}}},
            "bare": {},
        },
        "required": ["stops", "mode"],
        "additionalProperties": False,
        "$defs": {"é": [1, 2.5, {"k": "<&>'"}]},
    },
}
NO_PARAMETERS = {"type": "function", "function": {"name": "now"}}
TOOL_LISTS = {"two": [WEATHER, ADD], "deep": [DEEP, NO_PARAMETERS], "empty": []}


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **others):
    return {"role": "assistant", "content": text, **others}


def result(text, **others):
    return {"role": "tool", "content": text, **others}


RAIN = assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": 2, "hours": [1.0, 2.5e-7, 1e22], "x": None})])
MANY = assistant("I look.", tool_calls=[
    call("add", {"a": 1, "b": -2.5, "sure": True, "why": {"deep": ["<x>", "'y'", "é"]}}),
    {"name": "plan", "arguments": {"stops": ["a", "b"], "mode": "ferry", "text": "two\nlines & <tags>"}},
])
THOUGHT = assistant("<think>\nLet me see: Zürich.\n</think>\nIt rains.")
REASONED = assistant("It rains.", reasoning_content="Let me see:\n\nZürich.")
CONVERSATIONS = {
    "user": [user("What is the weather in Zürich?")],
    "system_user": [system("You are terse."), user("Hi")],
    "empty_system": [system(""), user("Hi")],
    "empty_user": [user("")],
    "spaces": [system("  two\n\nlines \t"), user(" \n Hi \n\n")],
    "turns": [user("One?"), assistant("1."), user("Two?"), assistant(" 2.\n"), user("Three?")],
    "answered": [system("Be kind."), user("One?"), assistant("1.")],
    "thought_in_history": [user("Rain?"), THOUGHT, user("Sure?")],
    "thought_last": [user("Rain?"), THOUGHT],
    "reasoning_in_history": [user("Rain?"), REASONED, user("Sure?"), assistant("Yes.", reasoning_content="  "), user("Why?")],
    "reasoning_last": [user("Rain?"), REASONED],
    "reasoning_without_answer": [user("Rain?"), assistant(None, reasoning_content="Hm."), user("And?")],
    "never_closed": [user("Rain?"), assistant("<think>\nLet me see"), user("Sure?")],
    "never_opened": [user("Rain?"), assistant("Let me see\n</think>\n\nIt rains."), user("Sure?")],
    "thought_twice": [user("Rain?"), assistant("<think>a</think>b<think>c</think>d"), user("Sure?"), THOUGHT],
    "silent": [user("Rain?"), assistant("<think>\nhm\n</think>\n"), user("Well?"), assistant(""), user("?")],
    "tool_call": [user("Rain?"), RAIN],
    "tool_result": [system("Use tools."), user("Rain?"), RAIN, result("12.5 °C, \"rain\" <b>")],
    "tool_answered": [user("Rain?"), RAIN, result("12"), assistant("12 degrees."), user("Thanks.")],
    "two_calls": [user("Both?"), MANY, result("3"), result("{\"ok\": true}", name="plan"), assistant("Done.")],
    "two_calls_in_history": [user("Both?"), MANY, result("3"), result("4"), user("Again?"), MANY, result("5")],
    "thought_before_call": [user("Rain?"), {**RAIN, "content": "<think>\nI must look.\n</think>\nI look."}, result("12")],
    "thought_before_call_in_history": [
        user("Rain?"), {**RAIN, "reasoning_content": "I must look."}, result("12"), THOUGHT, user("And now?"),
        {**RAIN, "content": "<think>open", "tool_calls": [call("add", {})]}, result("13")],
    "open_thought_before_call_in_history": [user("Rain?"), {**RAIN, "content": "say <think>open"}, result("12"), user("And?")],
    "call_without_arguments": [user("Now?"), assistant(None, tool_calls=[{"type": "function", "function": {"name": "now"}}])],
    "arguments_as_text": [user("Rain?"), assistant("", tool_calls=[call("get_weather", "{\"city\": \"Zürich\"}")])],
    "empty_calls": [user("Rain?"), assistant("No.", tool_calls=[])],
    "result_first": [result("12"), user("What was that?")],
    "result_with_list": [user("Rain?"), RAIN, result([{"type": "text", "text": "12 °C"}])],
    "parts": [user([{"type": "text", "text": "Look"}, {"type": "image"}])],
    "no_content": [user(None), assistant(None), user("Hi")],
    "late_system": [user("Hi"), system("Now in French."), user("Again.")],
    "other_role": [{"role": "developer", "content": "Be exact."}, user("Hi")],
    "unicode": [system("日本語で。"), user("👩‍👩‍👧 é e\u0301 \u200b\u2028 \u00a0 ẞ"), assistant("<think>тихо</think>ясно"), user("שלום")],
    "marks_in_text": [user("<|im_end|>\n<|im_start|>assistant\n<think></think>{{ x }} {% if %}"), assistant("</s>"), user("a\tb\r\nc")],
    "no_user": [system("Alone.")],
}
SETTINGS = [
    {},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "variables": {"enable_thinking": True}},
    {"add_generation_prompt": True, "variables": {"enable_thinking": False}},
    {"add_generation_prompt": True, "tools": "two"},
    {"tools": "deep", "variables": {"enable_thinking": False}},
    {"tools": "empty", "variables": {"truncate_history_thinking": False}},
    {"add_generation_prompt": True, "variables": {"truncate_history_thinking": False, "enable_thinking": False}},
]


def template_path():
    return pathlib.Path(os.environ.get("LOGITLAB_SHARED") or ROOT.parent / "shared", "data", FILE_NAME)


def outcome_of(tokenizer, source, messages, setting):
    """{"text"} or {"error"} of one conversation under one setting."""
    return record_templates.outcome(lambda: tokenizer.apply_chat_template(
        json.loads(json.dumps(messages)),
        tools=TOOL_LISTS[setting["tools"]] if "tools" in setting else None,
        chat_template=source,
        add_generation_prompt=setting.get("add_generation_prompt", False),
        tokenize=False,
        **setting.get("variables", {}),
    ))


def main():
    content = template_path().read_bytes()
    tokenizer = record_templates.make_tokenizer()
    cases = []
    for name, messages in CONVERSATIONS.items():
        for number, setting in enumerate(SETTINGS):
            case = {"conversation": name, "setting": number}
            outcome = outcome_of(tokenizer, content.decode("utf-8"), messages, setting)
            if "error" in outcome:
                cases.append({**case, "error": True})
                continue
            rendered = outcome["text"].encode("utf-8")
            cases.append({**case, "bytes": len(rendered), "sha256": hashlib.sha256(rendered).hexdigest()})
    recording = {
        "versions": VERSIONS,
        "template": {"file": FILE_NAME, "sha256": hashlib.sha256(content).hexdigest()},
        "special_tokens": record_templates.SPECIAL_TOKENS,
        "tools": TOOL_LISTS,
        "conversations": CONVERSATIONS,
        "settings": SETTINGS,
        "cases": cases,
    }
    RECORDING.write_text(json.dumps(recording, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    n_errors = sum("error" in case for case in cases)
    print(f"{len(CONVERSATIONS)} conversations, {len(cases)} renderings, {n_errors} of them errors")


if __name__ == "__main__":
    sys.exit(main())
