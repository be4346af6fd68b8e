// Test tool: text/ over a pipe, for comparisons with transformers (tests/oracle/test_text.py).
//
//   text_probe FOLDER|GGUF|tokenizer.json
//
// One JSON object a line on stdin, one answer a line on stdout:
//   {"op": "encode", "text": T, "add_special_tokens": b, "parse_special": b}  -> {"ids": [...]}
//   {"op": "decode", "ids": [...], "skip_special_tokens": b}  -> {"text": T, "stream": T}
//   {"op": "render", "messages": [...], "tools": ..., "documents": ..., "variables": {...},
//    "add_generation_prompt": b, "continue_final_message": field, "template": source}
//                                                             -> {"text": T}
// or {"error": message}. "template" replaces the model's own.
#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "text/chat_template.h"
#include "text/load_text.h"
#include "text/stream_decoder.h"

namespace logitlab {
namespace {

constexpr size_t kMaxFileBytes = size_t{512} << 20;

Result<TextModel> load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    return load_text_from_folder(path);
  }
  if (path.extension() == ".gguf") {
    ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(path));
    ASSIGN_OR_RETURN(const GgufVocab vocab, file.read_vocab());
    return load_text_from_gguf(vocab, path.string());
  }
  TextModel model;
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::from_json(text, path.string()));
  return model;
}

bool flag(const Json& request, const char* key, bool otherwise) {
  const auto found = request.find(key);
  return found == request.end() ? otherwise : found->get<bool>();
}

Result<Json> encode(const TextModel& model, const Json& request) {
  EncodeOptions options;
  options.add_special_tokens = flag(request, "add_special_tokens", true);
  options.parse_special = flag(request, "parse_special", true);
  ASSIGN_OR_RETURN(const auto ids,
                   model.tokenizer->encode(request["text"].get<std::string>(), options));
  return Json{{"ids", ids}};
}

Result<Json> decode(const TextModel& model, const Json& request) {
  const bool skip = flag(request, "skip_special_tokens", false);
  const auto ids = request["ids"].get<std::vector<TokenId>>();
  ASSIGN_OR_RETURN(const std::string text, model.tokenizer->decode(ids, skip));
  StreamDecoder decoder(model.tokenizer, skip);
  std::string stream;
  for (const TokenId id : ids) {
    ASSIGN_OR_RETURN(const std::string delta, decoder.push(id));
    stream += delta;
  }
  ASSIGN_OR_RETURN(const std::string rest, decoder.flush());
  return Json{{"text", text}, {"stream", stream + rest}};
}

Result<Json> render(const TextModel& model, const Json& request) {
  const ChatTemplate* chat_template = model.chat_template.get();
  std::unique_ptr<const ChatTemplate> own;
  if (const auto found = request.find("template"); found != request.end()) {
    ASSIGN_OR_RETURN(own, ChatTemplate::create({{"default", found->get<std::string>()}},
                                               model.special_tokens, "template"));
    chat_template = own.get();
  }
  if (chat_template == nullptr) {
    return fail(ErrorCode::kNotFound, "the model has no chat template");
  }
  const auto value = [&](const char* key) {
    const auto found = request.find(key);
    return found == request.end() ? nullptr : &*found;
  };
  ChatRequest chat;
  chat.messages = value("messages");
  chat.tools = value("tools");
  chat.documents = value("documents");
  chat.variables = value("variables");
  chat.add_generation_prompt = flag(request, "add_generation_prompt", false);
  chat.continue_final_message = request.value("continue_final_message", "");
  ASSIGN_OR_RETURN(const std::string text, chat_template->render(chat));
  return Json{{"text", text}};
}

Result<Json> answer(const TextModel& model, const std::string& line) {
  ASSIGN_OR_RETURN(const Json request, parse_json(line, "request"));
  const std::string op = request.value("op", "");
  if (op == "encode") {
    return encode(model, request);
  }
  if (op == "decode") {
    return decode(model, request);
  }
  if (op == "render") {
    return render(model, request);
  }
  return fail(ErrorCode::kUsage, "op is \"{}\", want encode, decode or render", op);
}

int run(const std::string& path) {
  TextModel model;
  if (path != "-") {
    Result<TextModel> loaded = load(path);
    if (!loaded) {
      std::cerr << loaded.error().message << "\n";
      return exit_code(loaded.error().code);
    }
    model = std::move(*loaded);
  }
  for (std::string line; std::getline(std::cin, line);) {
    Result<Json> result = answer(model, line);
    std::cout << dump_json(result ? *result : Json{{"error", result.error().message}}) << "\n"
              << std::flush;
  }
  return 0;
}

}  // namespace
}  // namespace logitlab

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: text_probe FOLDER | FILE.gguf | tokenizer.json | -\n";
    return 2;
  }
  try {
    return logitlab::run(argv[1]);
  } catch (const std::exception& error) {  // a request with a value of the wrong type
    std::cerr << error.what() << "\n";
    return 3;
  }
}
