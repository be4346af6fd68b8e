// process: the logits processors on rows of logits, without a model.
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "command.h"
#include "engine/process_rows.h"
#include "text_input.h"

namespace logitlab {
namespace {

struct ProcessOptions {
  std::string file = "-";
  std::string encoding = "json";
  bool no_probabilities = false;
  bool kept = false;
};

// Lines of a file or of standard input, each at most kMaxInputBytes long.
class LineSource {
 public:
  [[nodiscard]] static Result<LineSource> open(const std::string& path) {
    if (path == "-") {
      return LineSource(STDIN_FILENO, "standard input");
    }
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument, "{}: {}",
                  path, std::strerror(errno));
    }
    struct stat status = {};
    LineSource source(fd, path);
    if (::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) {
      return fail(ErrorCode::kInvalidArgument, "{}: a directory, want a file of JSON lines", path);
    }
    return source;
  }

  LineSource(LineSource&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        name_(std::move(other.name_)),
        pending_(std::move(other.pending_)),
        begin_(other.begin_),
        at_end_(other.at_end_) {}
  LineSource& operator=(LineSource&&) = delete;
  ~LineSource() {
    if (fd_ > STDERR_FILENO) {
      ::close(fd_);
    }
  }

  struct Line {
    std::string text;
    bool is_too_long = false;  // `text` is its beginning
  };
  // `before_wait` is called whenever more must be read. Empty at the end; a last line without a
  // line break counts.
  template <typename BeforeWait>
  [[nodiscard]] Result<std::optional<Line>> next(BeforeWait before_wait) {
    Line line;
    size_t searched = begin_;
    for (;;) {
      const size_t end = pending_.find('\n', searched);
      const size_t stop = end == std::string::npos ? pending_.size() : end;
      if (stop - begin_ > kMaxInputBytes) {
        if (!line.is_too_long) {
          line = {pending_.substr(begin_, 80), true};
        }
        begin_ = stop;
      }
      if (end != std::string::npos || (at_end_ && (begin_ < stop || line.is_too_long))) {
        if (!line.is_too_long) {
          line.text = pending_.substr(begin_, stop - begin_);
        }
        begin_ = end == std::string::npos ? stop : end + 1;
        return std::optional<Line>(std::move(line));
      }
      if (at_end_) {
        return std::optional<Line>();
      }
      pending_.erase(0, begin_);
      begin_ = 0;
      searched = pending_.size();
      before_wait();
      RETURN_IF_ERROR(read_more());
    }
  }

 private:
  LineSource(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  Status read_more() {
    std::array<char, 65536> chunk{};
    ssize_t n = -1;
    do {
      n = ::read(fd_, chunk.data(), chunk.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: {}", name_, std::strerror(errno));
    }
    at_end_ = n == 0;
    pending_.append(chunk.data(), static_cast<size_t>(n));
    return {};
  }

  int fd_;
  std::string name_;
  std::string pending_;
  size_t begin_ = 0;
  bool at_end_ = false;
};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r") == std::string::npos;
}

Result<int> run_process(const ProcessOptions& options, Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  AnswerOptions answer;
  answer.encoding = options.encoding == "base64" ? RowEncoding::kBase64 : RowEncoding::kJson;
  answer.probabilities = !options.no_probabilities;
  answer.kept_ids = options.kept;
  ASSIGN_OR_RETURN(LineSource source, LineSource::open(options.file));
  if (options.file == "-" && stdin_is_terminal()) {
    terminal.note("reading JSON lines from standard input; Ctrl-D ends them\n");
  }
  int64_t n_lines = 0;
  int64_t n_answers = 0;
  int64_t n_bad = 0;
  while (terminal.is_writable()) {
    ASSIGN_OR_RETURN(const auto line, source.next([&terminal] { terminal.flush(); }));
    if (!line) {
      break;
    }
    ++n_lines;
    if (!line->is_too_long && is_blank(line->text)) {
      continue;
    }
    ++n_answers;
    const LineAnswer answered =
        line->is_too_long ? LineAnswer{error_line(Json(), n_lines,
                                                  Error{ErrorCode::kResourceExhausted,
                                                        fmt::format("line {}: more than {} bytes",
                                                                    n_lines, kMaxInputBytes)}),
                                       true}
                          : process_line(line->text, n_lines, answer);
    n_bad += answered.is_error ? 1 : 0;
    terminal.print(answered.text);
    terminal.print("\n");
  }
  if (n_answers == 0) {
    terminal.note("logitlab: process: the input holds no line; want one JSON object a line\n");
  }
  if (n_bad > 0) {
    terminal.note(fmt::format(
        "logitlab: process: {} of {} lines are wrong; their answers say why\n", n_bad, n_answers));
  }
  return n_bad > 0 ? exit_code(ErrorCode::kInvalidArgument) : 0;
}

Action declare_process(CLI::App& app) {
  auto options = std::make_shared<ProcessOptions>();
  app.add_option("FILE", options->file,
                 "A file of JSON lines; `-`, the default, is standard input.")
      ->group("Input");
  app.add_option("--encoding", options->encoding,
                 "How rows are written: json (arrays; a number that is not finite is \"-inf\", "
                 "\"inf\" or \"nan\") or base64 (scores_base64, probabilities_base64: float32, "
                 "little endian). Default json.")
      ->type_name("HOW")
      ->check(CLI::IsMember({"json", "base64"}))
      ->group("Result");
  app.add_flag("--no-probabilities", options->no_probabilities, "Leaves the probabilities out.")
      ->group("Result");
  app.add_flag("--kept", options->kept, "Lists the ids that every stage kept.")->group("Result");
  return [options](Invocation& invocation) { return run_process(*options, invocation); };
}

}  // namespace

Command process_command() {
  return {
      "process",
      "what the settings do to given logits; no model needed",
      "Reads one JSON object a line and answers each with one line: the scores after every "
      "processor that generate would apply, how many tokens each stage left, ties, and the "
      "probabilities of the draw.\n\n"
      "Keys: `logits` (numbers; null is minus infinity) or `logits_base64` (float32, little "
      "endian); `input_ids` (prompt and answer so far); `prompt_length` (default: all of them); "
      "`config` (settings, merged as generate merges them: top_k is 50 unless you say "
      "otherwise); `model_config` (the model's generation_config.json); `unguided_logits` (for "
      "guidance_scale); `max_length` (for forced_eos_token_id); `thinking_ids` ([open, close]); "
      "`id` (repeated in the answer). With num_beams above 1 the logits become log-probabilities "
      "first, as in beam search.\n\n"
      "A line that is wrong is answered with {\"id\", \"line\", \"error\"}; the others go on, and "
      "the exit code is 3.",
      {{"process rows.jsonl > answers.jsonl", "a file of rows"},
       {"process --kept <<< '{\"logits\": [2, 1, 0, -1], \"config\": {\"do_sample\": true, "
        "\"top_p\": 0.9}}'",
        "one row, with the ids that every stage kept"}},
      declare_process};
}

}  // namespace logitlab
