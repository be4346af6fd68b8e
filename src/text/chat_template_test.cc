#include "text/chat_template.h"

#include <chrono>
#include <map>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "text/test_data.h"

namespace logitlab {
namespace {

const Json kHi = Json::parse(R"([{"role": "user", "content": "Hi"}])");

std::unique_ptr<const ChatTemplate> compile(std::string source, SpecialTokens tokens = {}) {
  auto made = ChatTemplate::create({{"default", std::move(source)}}, std::move(tokens), "test");
  EXPECT_TRUE(made.has_value());
  return std::move(*made);
}

Result<std::string> render(const std::string& source, const Json& messages = kHi,
                           const Json& variables = Json()) {
  ChatRequest request;
  request.messages = &messages;
  request.variables = &variables;
  return compile(source)->render(request);
}

std::string error_of(const Result<std::string>& result) {
  return result ? "no error, but " + *result : result.error().message;
}

// Every recorded template over every conversation and setting: exactly what transformers gives.
TEST(ChatTemplate, RendersAsTransformersDoes) {
  const Json inputs = read_json_data("templates/conversations.json");
  const Json recorded = read_json_data("templates/rendered.json");
  SpecialTokens tokens;
  for (const auto& [name, content] : inputs["special_tokens"].items()) {
    tokens.emplace_back(name, content.get<std::string>());
  }
  std::map<std::string, std::unique_ptr<const ChatTemplate>> templates;
  int n_texts = 0;
  for (const Json& test : recorded["cases"]) {
    const auto file = test["template"].get<std::string>();
    if (!templates.contains(file)) {
      templates[file] = compile(read_data("templates/" + file), tokens);
    }
    const Json& setting = inputs["settings"][test["setting"].get<size_t>()];
    ChatRequest request;
    request.messages = &inputs["conversations"][test["conversation"].get<std::string>()];
    request.tools = setting.contains("tools") ? &inputs["tools"] : nullptr;
    request.documents = setting.contains("documents") ? &inputs["documents"] : nullptr;
    request.variables = setting.contains("variables") ? &setting["variables"] : nullptr;
    request.add_generation_prompt = setting.value("add_generation_prompt", false);
    request.continue_final_message = setting.value("continue_final_message", "");
    const Result<std::string> text = templates[file]->render(request);
    const std::string where =
        fmt::format("{} {} {}", file, test["conversation"].dump(), test["setting"].dump());
    if (test.contains("error")) {
      EXPECT_FALSE(text.has_value()) << where << ": transformers refuses, we give " << *text;
    } else {
      ASSERT_TRUE(text.has_value()) << where << ": " << text.error().message;
      EXPECT_EQ(*text, test["text"].get<std::string>()) << where;
      ++n_texts;
    }
  }
  EXPECT_GE(templates.size(), 12U);
  EXPECT_GT(n_texts, 900);
}

TEST(ChatTemplate, ExpressionsGiveWhatPythonGives) {
  const Json recorded = read_json_data("templates/expressions.json");
  int n_texts = 0;
  for (const Json& test : recorded["cases"]) {
    const auto source = test["template"].get<std::string>();
    const Result<std::string> text = render(source, recorded["messages"], recorded["variables"]);
    if (test.contains("error")) {
      EXPECT_FALSE(text.has_value()) << source << ": transformers refuses, we give " << *text;
    } else {
      ASSERT_TRUE(text.has_value()) << source << ": " << text.error().message;
      EXPECT_EQ(*text, test["text"].get<std::string>()) << source;
      ++n_texts;
    }
  }
  EXPECT_GT(n_texts, 280);
}

TEST(ChatTemplate, NewlinesAndBlocks) {
  EXPECT_EQ(render("A\n"), "A");
  EXPECT_EQ(render("A\n\n"), "A\n");
  EXPECT_EQ(render("{% for m in messages %}\n  {{ m.content }}\n  {% endfor %}\nX"), "  Hi\nX");
  EXPECT_EQ(render("a\r\nb\r\n"), "a\nb");
  EXPECT_EQ(render("{% generation %}x{% endgeneration %}y"), "xy");
}

TEST(ChatTemplate, AbsentVariablesAreUndefinedAndNullsAreNone) {
  EXPECT_EQ(render("[{{ nope }}]"), "[]");
  EXPECT_NE(error_of(render("{{ nope.a }}")).find("undefined"), std::string::npos);
  EXPECT_EQ(render("{{ tools is defined }}{{ tools is none }}"), "TrueTrue");
  const std::string thinking =
      "{% if enable_thinking is defined and enable_thinking is false %}OFF{% endif %}";
  EXPECT_EQ(render(thinking), "");
  EXPECT_EQ(render(thinking, kHi, Json{{"enable_thinking", false}}), "OFF");
}

TEST(ChatTemplate, WhatATemplateMayNotDo) {
  EXPECT_NE(error_of(render("{% do messages %}")).find("unknown tag 'do'"), std::string::npos);
  EXPECT_NE(error_of(render("{{ messages.append(1) }}")).find("append"), std::string::npos);
  EXPECT_EQ(error_of(render("a\n{{ raise_exception('bad luck') }}")), "test: line 2: bad luck");
  EXPECT_EQ(error_of(render("{{ raise_exception('a\n\x1b[2Jb') }}")),
            "test: line 1: a\\n\\x1b[2Jb");
  EXPECT_FALSE(render("{% include 'x' %}").has_value());
  EXPECT_EQ(render("[{{ messages.__class__ }}]"), "[]");
}

TEST(ChatTemplate, SyntaxErrorsNameTemplateAndLine) {
  auto made =
      ChatTemplate::create({{"default", "fine"}, {"tool_use", "a\nb{% if %}"}}, {}, "f.json");
  ASSERT_TRUE(made.has_value());
  const Status status = (*made)->check();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.error().message.rfind("f.json \"tool_use\": line 2: cannot be parsed", 0), 0U)
      << status.error().message;
  ChatRequest request;
  request.messages = &kHi;
  EXPECT_EQ((*made)->render(request), "fine");  // the broken one is not needed
  request.template_name = "tool_use";
  EXPECT_FALSE((*made)->render(request).has_value());
}

TEST(ChatTemplate, ChoosesByToolsAndByName) {
  auto made = ChatTemplate::create({{"default", "D"}, {"tool_use", "T"}, {"rag", "R"}}, {}, "f");
  ASSERT_TRUE(made.has_value());
  const Json tools = Json::parse(R"([{"type": "function"}])");
  ChatRequest request;
  request.messages = &kHi;
  EXPECT_EQ((*made)->render(request), "D");
  request.tools = &tools;
  EXPECT_EQ((*made)->render(request), "T");
  request.template_name = "rag";
  EXPECT_EQ((*made)->render(request), "R");
  request.template_name = "nope";
  EXPECT_NE(error_of((*made)->render(request)).find("\"default\", \"tool_use\", \"rag\""),
            std::string::npos);
  EXPECT_FALSE(ChatTemplate::create({}, {}, "f").has_value());
  EXPECT_FALSE(ChatTemplate::create({{"a", ""}, {"a", ""}}, {}, "f").has_value());
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  const Json messages = Json::parse(
      R"([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Sure: "}])");
  const std::string plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}";
  const std::string trims =
      "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</>\n{% endfor %}";
  ChatRequest request;
  request.messages = &messages;
  request.continue_final_message = "content";
  EXPECT_EQ(compile(plain)->render(request), "<user>Q</>\n<assistant>Sure: ");
  EXPECT_EQ(compile(trims)->render(request), "<user>Q</>\n<assistant>Sure:");
  EXPECT_FALSE(compile("{# content #}x")->render(request).has_value());
  request.add_generation_prompt = true;
  EXPECT_NE(error_of(compile(plain)->render(request)).find("exclude each other"),
            std::string::npos);
  request.add_generation_prompt = false;
  const Json empty = Json::parse(R"([{"role": "assistant", "content": null}])");
  request.messages = &empty;
  EXPECT_NE(error_of(compile(plain)->render(request)).find("has no \"content\""),
            std::string::npos);
}

TEST(ChatTemplate, RefusesWrongInputs) {
  ChatRequest request;
  EXPECT_FALSE(compile("x")->render(request).has_value());
  const Json empty = Json::array();
  request.messages = &empty;
  EXPECT_NE(error_of(compile("x")->render(request)).find("at least one"), std::string::npos);
  const Json wrong = Json::parse(R"(["hi"])");
  request.messages = &wrong;
  EXPECT_NE(error_of(compile("x")->render(request)).find("messages[0]: found string"),
            std::string::npos);
  request.messages = &kHi;
  const Json list = Json::array({1});
  request.variables = &list;
  EXPECT_FALSE(compile("x")->render(request).has_value());
}

// Variables of the caller win over special tokens; the fixed ones win over both.
TEST(ChatTemplate, VariablesWinOverSpecialTokens) {
  const Json variables = {{"bos_token", "B"}, {"n", 2.0}, {"big", 1e16}, {"i", 3}};
  ChatRequest request;
  request.messages = &kHi;
  request.variables = &variables;
  const auto made = compile("{{ bos_token }}{{ eos_token }} {{ n }} {{ big }} {{ i }}",
                            {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  EXPECT_EQ(made->render(request), "B</s> 2.0 1e+16 3");
}

TEST(ChatTemplate, EndlessTemplatesEnd) {
  const char* endless[] = {
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% for i in range(99999) %}{% for j in range(99999) %}0123456789{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}",
      "{% set ns = namespace(s='ab') %}{% for i in range(90) %}{% set ns.s = ns.s ~ ns.s %}"
      "{% endfor %}{{ ns.s }}",
      "{{ 'x' * 99999999999 }}",
      "{{ 'x'.ljust(99999999999) }}",
      "{{ 'x'|center(99999999999) }}",
      "{{ '%99999999999d' % 1 }}",
      "{{ '{:99999999999}'.format(1) }}",
      "{{ '%.99999999999f' % 1.5 }}",
      "{{ [1]|tojson(indent=99999999) }}",
      "{% for i in range(99999999999) %}{% endfor %}",
  };
  for (const char* source : endless) {
    const auto start = std::chrono::steady_clock::now();
    const Result<std::string> text = render(source);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(text.has_value()) << source;
    EXPECT_LT(seconds.count(), 20.0) << source;
    if (!text) {
      EXPECT_EQ(exit_code(text.error().code), 3) << source << ": " << text.error().message;
    }
  }
  EXPECT_NE(error_of(render(endless[0])).find("loop for ever"), std::string::npos);
  ChatRequest request;
  request.messages = &kHi;
  const auto small = compile("0123456789")->render(request, {.output_bytes = 9});
  EXPECT_NE(error_of(small).find("more than 9 bytes"), std::string::npos);
}

// Two values of forty doublings by reference: 2^40 comparisons in one step, in next to no memory.
TEST(ChatTemplate, OneStepThatNeverEndsIsLeftAlone) {
  ChatRequest request;
  request.messages = &kHi;
  const auto endless = compile(
      "{% set n = namespace(l=[1], m=[1]) %}{% for i in range(40) %}{% set n.l = [n.l, n.l] %}"
      "{% set n.m = [n.m, n.m] %}{% endfor %}{{ n.l == n.m }}");
  const auto text = endless->render(request, {.seconds = 1});
  EXPECT_NE(error_of(text).find("still running after 1 s"), std::string::npos) << error_of(text);
}

// Deep nesting in the source must end in a message, not in a stack overflow.
TEST(ChatTemplate, DeepNestingIsAnError) {
  const int depth = 100'000;
  const auto repeat = [](const std::string& text, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) {
      out += text;
    }
    return out;
  };
  EXPECT_FALSE(render("{{ " + repeat("(", depth) + "1" + repeat(")", depth) + " }}").has_value());
  EXPECT_FALSE(render(repeat("{% if 1 %}", depth)).has_value());
  EXPECT_EQ(render("{{ " + repeat("not ", depth) + "1 }}"), "True");
  EXPECT_FALSE(render("{{ " + repeat("'%s' % (", depth) + "1" + repeat(")", depth) + " }}"));
}

TEST(ChatTemplate, RendersFromSeveralThreads) {
  const auto made = compile("{% for m in messages %}{{ m.content * 3 }}{% endfor %}");
  std::vector<std::thread> threads;
  std::vector<int> n_right(4, 0);
  for (int& right : n_right) {
    threads.emplace_back([&made, &right] {
      ChatRequest request;
      request.messages = &kHi;
      for (int i = 0; i < 50; ++i) {
        right += made->render(request) == "HiHiHi" ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(n_right, std::vector<int>(4, 50));
}

}  // namespace
}  // namespace logitlab
