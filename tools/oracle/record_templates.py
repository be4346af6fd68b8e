"""Records what transformers makes of the chat templates in tests/data/templates/.

    python tools/oracle/record_templates.py          (in the oracle environment)

Reads *.jinja and expressions.txt there; writes conversations.json (the inputs, built here),
rendered.json (every template over every conversation and setting) and expressions.json (small
templates that pin single features of the environment). Each file holds the versions it was made with.
"""

import json
import pathlib
import sys

import jinja2
import tokenizers
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "templates"
VERSIONS = {
    "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__,
    "jinja2": jinja2.__version__,
}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city <now> & \"later\"",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Größe: Zürich, 東京"},
                "days": {"type": "integer", "default": 3},
                "units": {"enum": ["C", "F"], "default": "C"},
                "hours": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": ["number", "null"]}, "b": {"type": "number"}},
            "required": [],
        },
    },
}
TOOLS = [WEATHER, ADD]
DOCUMENTS = [
    {"title": "one", "text": "first line\n\nsecond line"},
    {"title": "zwölf", "text": "日本語"},
]


def call(name, arguments, call_id="abcdef123"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "  You are terse. Answer in <b>one</b> line & mind 'quotes'.\n"}
USER = {"role": "user", "content": "What is the weather in Zürich?"}
TOOL_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [call("get_weather", {"city": "Zürich", "days": 2, "hours": [1.0, 2.5e-7, 1e22], "x": None})],
}
EMPTY_TOOL_CALL = {"role": "assistant", "content": "", "tool_calls": [call("add", {})]}
TOOL_RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "12.5 °C, \"rain\""}
CONVERSATIONS = {
    "one_user": [USER],
    "system_user": [SYSTEM, USER],
    "turns": [
        USER,
        {"role": "assistant", "content": " It rains. "},
        {"role": "user", "content": "\n And tomorrow?\n\n"},
    ],
    "system_turns_answered": [
        SYSTEM,
        USER,
        {"role": "assistant", "content": "Rain.\n"},
        {"role": "user", "content": "Sure? 👩‍👩‍👧 é"},
        {"role": "assistant", "content": "Sure: "},
    ],
    "thinking": [
        USER,
        {"role": "assistant", "content": "<think>\nhm, Zürich\n</think>\n\nRain."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "reasoning_content": "\nbecause\n", "content": "Clouds."},
    ],
    "tool_call": [SYSTEM, USER, TOOL_CALL],
    "tool_result": [USER, TOOL_CALL, TOOL_RESULT],
    "tool_answered": [
        SYSTEM,
        USER,
        TOOL_CALL,
        TOOL_RESULT,
        {"role": "assistant", "content": "12.5 degrees."},
        {"role": "user", "content": "Thanks. <tool_response>x</tool_response>"},
    ],
    "two_tool_calls": [
        USER,
        {"role": "assistant", "content": "Wait.", "tool_calls": [call("add", {"a": 1, "b": 2}), call("add", {"a": -1})]},
        TOOL_RESULT,
        {"role": "tool", "tool_call_id": "abcdef123", "content": "3"},
    ],
    "empty_tool_call": [USER, EMPTY_TOOL_CALL, TOOL_RESULT],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "ok?"}]},
    ],
    "wrong_order": [USER, USER],
    "controls": [{"role": "user", "content": "a\tb\r\nc\u0000\u0007\u2028d\\n {{ x }} {% if %} <|im_end|></s>"}],
}
SETTINGS = [
    {},
    {"add_generation_prompt": True},
    {"tools": True},
    {"tools": True, "add_generation_prompt": True, "variables": {"tools_in_user_message": False}},
    {"add_generation_prompt": True, "variables": {"enable_thinking": True, "date_string": "1 Jan 2026"}},
    {"add_generation_prompt": True, "variables": {"enable_thinking": False, "bos_token": "<B>"}},
    {"documents": True, "tools": True, "variables": {"builtin_tools": ["code_interpreter", "search"]}},
    {"continue_final_message": "content"},
]
EXPRESSION_VARIABLES = {
    "x": {"b": "<é&'\">", "a": [1, 2.0, True, None]},
    "s": "  Hello World foo,bar  ",
    "n": -7,
    "f": 1e16,
    "g": 0.1,
    "h": 1e-5,
    "i": 100000.0,
    "d": {"b": 2, "a": 1, "C": 3, "items": 5},
    "l": [3, 1, 2, "z"],
    "emp": "",
    "u": "ünï\u00a0code\u200b\x07",
    "enable_thinking": False,
    "nest": [[1, [2]], {"k": {"z": [1]}}],
    "ints": [5, 4, 9],
    "lines": "a\nb\r\nc\x0bd\n\n",
    "objs": [{"n": "a", "v": 1}, {"n": "b"}, {"n": "c", "v": 3}],
}
EXPRESSION_MESSAGES = [
    {"role": "system", "content": " Sys "},
    {"role": "user", "content": "Hi é\n<b>&'\""},
    {"role": "assistant", "content": None, "tool_calls": [call("f", {"a": 1, "b": [1.0, True, None, "x'y"], "items": {"k": "v"}, "big": 1e20})]},
    {"role": "user", "content": [{"type": "text", "text": "t1"}, {"type": "image"}]},
]


def make_tokenizer():
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL_TOKENS)


def outcome(render):
    try:
        return {"text": render()}
    except Exception:  # any error is an error; the wording is ours
        return {"error": True}


def render_all(tokenizer):
    cases = []
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, conversation in CONVERSATIONS.items():
            # Through JSON: transformers would change two mentions of one object together.
            messages = json.loads(json.dumps(conversation))
            for number, setting in enumerate(SETTINGS):
                def render():
                    return tokenizer.apply_chat_template(
                        messages,
                        tools=TOOLS if setting.get("tools") else None,
                        documents=DOCUMENTS if setting.get("documents") else None,
                        chat_template=source,
                        add_generation_prompt=setting.get("add_generation_prompt", False),
                        continue_final_message=setting.get("continue_final_message", False),
                        tokenize=False,
                        **setting.get("variables", {}),
                    )
                case = {"template": path.name, "conversation": name, "setting": number}
                cases.append({**case, **outcome(render)})
    return cases


def render_expressions():
    cases = []
    for source in (FOLDER / "expressions.txt").read_bytes().decode("utf-8").split("\n%%\n"):
        def render():
            return render_jinja_template(
                [EXPRESSION_MESSAGES],
                chat_template=source,
                add_generation_prompt=False,
                **EXPRESSION_VARIABLES,
            )[0][0]
        cases.append({"template": source, **outcome(render)})
    return cases


def write(name, content):
    text = json.dumps({"versions": VERSIONS, **content}, ensure_ascii=False, indent=1)
    (FOLDER / name).write_text(text + "\n", encoding="utf-8")


def main():
    write("conversations.json", {
        "special_tokens": SPECIAL_TOKENS,
        "tools": TOOLS,
        "documents": DOCUMENTS,
        "conversations": CONVERSATIONS,
        "settings": SETTINGS,
    })
    cases = render_all(make_tokenizer())
    write("rendered.json", {"cases": cases})
    expressions = render_expressions()
    write("expressions.json", {
        "messages": EXPRESSION_MESSAGES,
        "variables": EXPRESSION_VARIABLES,
        "cases": expressions,
    })
    n_errors = sum("error" in case for case in cases)
    print(f"{len(cases)} renderings, {n_errors} of them errors; {len(expressions)} expressions")


if __name__ == "__main__":
    sys.exit(main())
