// The chat template cases J1 to J13 of the table of conformance cases (docs/numerics.md says where
// the other groups are).
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"

namespace logitlab {
namespace {

const Json kHi = Json::parse(R"([{"role": "user", "content": "Hi"}])");
const Json kUnfinished = Json::parse(
    R"([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Sure: "}])");
constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

Result<std::string> run(const std::string& source, const ChatRequest& request) {
  auto made = ChatTemplate::create({{"default", source}}, {}, "test");
  return made ? (*made)->render(request) : tl::unexpected<Error>(made.error());
}

// The text, or "error".
std::string render(const std::string& source, const Json& variables = Json()) {
  ChatRequest request;
  request.messages = &kHi;
  request.variables = &variables;
  return run(source, request).value_or("error");
}

std::string continued(const std::string& source, const Json& messages,
                      bool add_generation_prompt = false) {
  ChatRequest request;
  request.messages = &messages;
  request.continue_final_message = "content";
  request.add_generation_prompt = add_generation_prompt;
  return run(source, request).value_or("error");
}

TEST(ReferenceCasesJ, J1OneTrailingNewlineIsRemoved) {
  EXPECT_EQ(render("A\n"), "A");
  EXPECT_EQ(render("A\n\n"), "A\n");
}

TEST(ReferenceCasesJ, J2BlocksAreTrimmed) {
  EXPECT_EQ(render("{% for m in messages %}\n  {{ m.content }}\n  {% endfor %}\nX"), "  Hi\nX");
}

TEST(ReferenceCasesJ, J3TojsonIsPythonsDump) {
  const Json x = {{"b", "<\u00e9&'\">"}, {"a", {1, 2.0, true, nullptr}}};
  EXPECT_EQ(render("{{ x|tojson }}", Json{{"x", x}}),
            "{\"b\": \"<\u00e9&'\\\">\", \"a\": [1, 2.0, true, null]}");
}

TEST(ReferenceCasesJ, J4UndefinedPrintsNothingAndHasNoAttributes) {
  EXPECT_EQ(render("[{{ nope }}]"), "[]");
  EXPECT_EQ(render("{{ nope.a }}"), "error");
}

TEST(ReferenceCasesJ, J5FlagsThatAreAbsentAreNotFalse) {
  const std::string source =
      "{% if enable_thinking is defined and enable_thinking is false %}OFF{% endif %}";
  EXPECT_EQ(render(source, Json{{"enable_thinking", false}}), "OFF");
  EXPECT_EQ(render(source), "");
}

TEST(ReferenceCasesJ, J6ToolsAreDefinedAndNone) {
  EXPECT_EQ(render("{{ tools is defined }}{{ tools is none }}"), "TrueTrue");
}

TEST(ReferenceCasesJ, J7LoopsCanBreak) {
  EXPECT_EQ(render("{% for i in range(5) %}{% if i==2 %}{% break %}{% endif %}{{i}}{% endfor %}"),
            "01");
}

TEST(ReferenceCasesJ, J8DoMutationAndRaiseAreErrors) {
  EXPECT_EQ(render("{% do messages.append(1) %}"), "error");
  EXPECT_EQ(render("{{ messages.append(1) }}"), "error");
  EXPECT_EQ(render("{{ raise_exception(\"bad\") }}"), "error");
}

TEST(ReferenceCasesJ, J9ValuesPrintAsPythonPrintsThem) {
  EXPECT_EQ(render("{{ true }} {{ none }} {{ [1,\"a\"] }}"), "True None [1, 'a']");
}

TEST(ReferenceCasesJ, J10TheFinalMessageGoesOn) {
  EXPECT_EQ(continued(kChatMl, kUnfinished),
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nSure: ");
  EXPECT_EQ(continued("{% for m in messages %}{{ m.role }}:{{ m.content|trim }};{% endfor %}",
                      kUnfinished),
            "user:Q;assistant:Sure:");
}

TEST(ReferenceCasesJ, J11AFinalMessageWithoutTextCannotGoOn) {
  const Json empty = Json::parse(R"([{"role": "assistant", "content": null}])");
  EXPECT_EQ(continued(kChatMl, empty), "error");
  EXPECT_EQ(continued("{# content #}x", kUnfinished), "error");
}

TEST(ReferenceCasesJ, J12ContinuingExcludesAGenerationPrompt) {
  EXPECT_EQ(continued(kChatMl, kUnfinished, /*add_generation_prompt=*/true), "error");
}

TEST(ReferenceCasesJ, J13GenerationBlocksAreTransparent) {
  EXPECT_EQ(render("{% generation %}x{% endgeneration %}y"), "xy");
}

}  // namespace
}  // namespace logitlab
