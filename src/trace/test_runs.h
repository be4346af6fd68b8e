// For tests: a small run with every kind of record, all fields set.
#pragma once

#include <limits>
#include <string>

#include "base/check.h"
#include "trace/trace_file.h"

namespace logitlab {

inline RunTrace test_run() {
  RunTrace run;
  run.model = "Tiny \"quoted\"";
  run.model_hash = "fnv1a:12";
  run.device = "cpu";
  run.isa = "AVX2";
  run.build = "0.1.0 abc";
  run.config_json = R"({"top_k":50,"eos_token_id":[2]})";
  run.ledger = {{"top_k", "50", "default", true, "only the k best"},
                {"seed", "0", "default", false, ""}};
  run.stop_ids = {{2, "generation_config.json"}};
  run.warnings = {"a line\nand another\tone \x01"};
  run.seed = std::numeric_limits<uint64_t>::max();
  run.vocab_size = 8;
  run.n_candidates = 2;
  run.prompts = {{1, 2, 3}, {4}};
  run.sequence_prompts = {0, 1};
  run.think_open = 6;
  run.think_close = 7;
  return run;
}

inline TracedStep test_step(int64_t sequence, int64_t step) {
  TracedStep traced;
  traced.sequence = sequence;
  traced.step = step;
  traced.id = 5;
  traced.logit = 1.1F;
  traced.score = 2.2F;
  traced.raw_probability = 0.1;
  traced.probability = 1.0 / 3;
  traced.raw_rank = 3;
  traced.rank = 1;
  traced.raw_entropy = 1.5e-300;
  traced.entropy = 0.25;
  traced.log_sum_exp = 12345.678901234567;
  traced.tail_log_sum_exp = -std::numeric_limits<double>::infinity();
  traced.largest_logit = 3.3e38F;
  traced.tied_at_max = {0, 1};
  traced.n_tied_at_max = 2;
  traced.draw = 0.7;
  traced.draw_key = 2.5566749439387324;
  traced.draw_margin = 1e-17;
  traced.draw_runner_up = 4;
  traced.logits_hash = 0xfedcba9876543210ULL;
  traced.is_thinking = true;
  traced.stages = {{"temperature", 8, 1.0, "none"},
                   {"top_k", 3, 0.9, "score", 1.5, 1.25, 2, 1, -1, -1, -1},
                   {"repetition_penalty", 3, 0.9, "none", kNoNumber, kNoNumber, 0, 0, 2, 1, 1}};
  traced.candidates = {
      {0, 3.3e38F, 1.0F, 0.5, 0.5, -1, true, false},
      {1, 1e-40F, -std::numeric_limits<float>::infinity(), 0.25, 0, 1, false, true},
      {5, 1.1F, 2.2F, 0.1, 0.5, -1, false, false}};
  return traced;
}

inline TracedBeamStep test_beam_step() {
  TracedBeamStep step;
  step.prompt = 1;
  step.candidates = {{3, 0, -0.5}, {2, 0, -1.5}};
  step.candidate_stops = {false, true};
  step.running = {{3, 0, -0.5}};
  step.finished = {-1.5, -1e9};
  step.improvable = false;
  return step;
}

inline RunEnd test_end() {
  RunEnd end;
  end.sequences.resize(2);
  end.sequences[0].ids = {5, 5};
  end.sequences[0].stop_reason = "length";
  end.sequences[0].answer_tokens = 2;
  end.sequences[1].sequence = 1;
  end.sequences[1].prompt = 1;
  end.sequences[1].ids = {3, 2};
  end.sequences[1].stop_reason = "eos_token";
  end.sequences[1].stop_id = 2;
  end.sequences[1].stop_string = "\xC3\xA9";
  end.sequences[1].thinking_tokens = 1;
  end.sequences[1].beam_score = -0.75;
  end.sequences[1].beam_indices = {0, 0};
  end.beam_stop = "num_beams finished";
  end.seconds = 0.125;
  end.pieces = {{2, "</s>"}, {3, "\xE2\x82\xAC"}};
  return end;
}

inline void record_test_run(TraceSink* sink) {
  sink->begin(test_run());
  sink->step(test_step(0, 0));
  TracedStep second = test_step(0, 1);
  second.draw = second.draw_key = second.draw_margin = kNoNumber;
  second.largest_logit = std::numeric_limits<float>::quiet_NaN();
  second.logits = {1, 2, 3, 4, -std::numeric_limits<float>::infinity(), 6, 7, 0.1F};
  sink->step(second);
  sink->beam_step(test_beam_step());
  sink->end(test_end());
}

}  // namespace logitlab
