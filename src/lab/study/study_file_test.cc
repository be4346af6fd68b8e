#include "lab/study/study_file.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/file.h"

namespace logitlab {
namespace {

std::string study_of(std::string_view rest) {
  return "name: s\nquestion: why?\nprompt: Hi\n" + std::string(rest);
}

Study parsed(std::string_view rest, const StudyOverrides& overrides = {}) {
  auto study = parse_study(study_of(rest), "f.yaml", overrides);
  EXPECT_TRUE(study) << study.error().message;
  return study ? *study : Study{};
}

std::string refused(std::string_view yaml, const StudyOverrides& overrides = {}) {
  const auto study = parse_study(yaml, "f.yaml", overrides);
  EXPECT_FALSE(study) << yaml;
  if (study) {
    return "";
  }
  EXPECT_EQ(study.error().code, ErrorCode::kInvalidArgument);
  return study.error().message;
}

// A study is refused with a message that begins with `start` and holds `part`.
void expect_refused(std::string_view rest, std::string_view start, std::string_view part) {
  const std::string message = refused(study_of(rest));
  EXPECT_TRUE(message.starts_with(start)) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

std::vector<std::string> names_of(const Study& study) {
  std::vector<std::string> names;
  for (const StudySetting& setting : study.settings) {
    names.push_back(setting.name);
  }
  return names;
}

using Names = std::vector<std::string>;

TEST(StudyFile, ASweepIsAGridInTheOrderOfTheFile) {
  const Study study = parsed(
      "settings: {do_sample: true, max_new_tokens: 5}\nsweep:\n  temperature: [0.2, 1]\n"
      "  top_k: [0, 5]\nruns: 3\n");
  EXPECT_EQ(names_of(study), (Names{"temperature=0.2, top_k=0", "temperature=0.2, top_k=5",
                                    "temperature=1, top_k=0", "temperature=1, top_k=5"}));
  EXPECT_EQ(study.settings[2].config.temperature, 1.0);
  EXPECT_EQ(study.settings[2].config.top_k, 0);
  EXPECT_EQ(study.settings[2].swept,
            (std::vector<SweptValue>{{"temperature", "1"}, {"top_k", "0"}}));
  EXPECT_EQ(study.settings[2].runs, 3);
  EXPECT_FALSE(study.settings[2].config.seed);
  EXPECT_EQ(new_tokens_at_most(study), 4 * 3 * 5);
  EXPECT_EQ(study.measures, std::vector<MeasureKind>{MeasureKind::kTexts});
}

TEST(StudyFile, VariantsStandWhereTheFileHasThem) {
  const std::string sweep = "sweep: {top_k: [1, 2]}\n";
  const std::string variants =
      "variants:\n  greedy: {settings: {do_sample: false}, control: true}\n";
  EXPECT_EQ(names_of(parsed(sweep + variants)), (Names{"top_k=1", "top_k=2", "greedy"}));
  const Study study = parsed(variants + sweep);
  EXPECT_EQ(names_of(study), (Names{"greedy", "top_k=1", "top_k=2"}));
  EXPECT_TRUE(study.settings[0].is_control);
  EXPECT_TRUE(study.settings[0].swept.empty());
}

TEST(StudyFile, WhatIsNotASettingCanBeSweptToo) {
  const Study study = parsed(
      "sweep:\n  threads: [1, 2]\n  neighbours: [0, 3]\n  thinking: [true]\n  prefill_chunk: [8, "
      "null]\n");
  ASSERT_EQ(study.settings.size(), 8U);
  EXPECT_EQ(study.settings[0].name, "threads=1, neighbours=0, thinking=true, prefill_chunk=8");
  EXPECT_EQ(study.settings[6].execution, (Execution{2, 8, 3}));
  EXPECT_EQ(study.settings[7].execution, (Execution{2, {}, 3}));
  EXPECT_EQ(study.settings[7].enable_thinking, true);
}

TEST(StudyFile, NullUnsetsAndNoneTurnsOff) {
  const Study study = parsed(
      "settings: {top_k: 7, eos_token_id: none}\nvariants: {a: {settings: {top_k: null}}, b: "
      "{settings: {top_k: none}}, c: {}}\n");
  EXPECT_FALSE(study.settings[0].config.top_k);
  EXPECT_EQ(study.settings[1].config.top_k, 0);
  EXPECT_EQ(study.settings[2].config.top_k, 7);
  EXPECT_EQ(study.settings[2].config.eos_token_id, TokenIds{});
}

TEST(StudyFile, SeedsAreSharedOrRunOn) {
  const std::string rest = "variants: {a: {seeds: [9, 9]}, b: {}, c: {runs: 1}}\nruns: 2\n";
  const auto seeds_of = [](const Study& study) {
    std::vector<uint64_t> seeds;
    for (const PlannedRun& run : plan_runs(study)) {
      EXPECT_EQ(run.index, static_cast<int64_t>(seeds.size()));
      seeds.push_back(run.seed);
    }
    return seeds;
  };
  EXPECT_EQ(seeds_of(parsed(rest)), (std::vector<uint64_t>{9, 9, 1234, 1235, 1234}));
  EXPECT_EQ(seeds_of(parsed(rest + "seeds: {policy: running, base: 10}\n")),
            (std::vector<uint64_t>{9, 9, 12, 13, 14}));
}

TEST(StudyFile, TheLessonsCounterGivesTheLessonsSeeds) {
  // The control comes first and takes 1234; top_k=1 has 1235 to 1237.
  const auto study = find_study("top-k", {{"policy=running"}, {}});
  ASSERT_TRUE(study) << study.error().message;
  const auto plan = plan_runs(*study);
  ASSERT_EQ(plan.size(), 16U);
  EXPECT_EQ(plan[0].seed, 1234U);
  EXPECT_EQ(study->settings[plan[1].setting].name, "top_k=1");
  EXPECT_EQ(plan[1].seed, 1235U);
  EXPECT_EQ(plan[3].seed, 1237U);
}

TEST(StudyFile, PromptsAreOutermost) {
  const auto study = parse_study(
      "name: s\nquestion: q\nprompts:\n  - One\n  - {name: two, text: Two, chat: false}\n"
      "  - {name: three, messages: [{role: system, content: Be brief}, {role: user, content: 3}]}\n"
      "variants: {a: {}, b: {prompt: two}}\n",
      "f.yaml");
  ASSERT_FALSE(study);
  EXPECT_EQ(study.error().message, "f.yaml:6: content: 3 found, want a text, in quotes");
  const auto good = parse_study(
      "name: s\nquestion: q\nprompts:\n  - One\n  - {name: two, text: Two, chat: false}\n"
      "  - {name: three, messages: [{role: system, content: Be brief}]}\n"
      "variants: {a: {}, b: {prompt: two}}\n",
      "f.yaml");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->prompts[0].name, "prompt 1");
  EXPECT_TRUE(good->prompts[0].is_chat);
  EXPECT_FALSE(good->prompts[1].is_chat);
  EXPECT_EQ(good->prompts[2].messages.at(0).content, "Be brief");
  std::vector<std::pair<size_t, size_t>> cells;
  for (const PlannedRun& run : plan_runs(*good)) {
    cells.emplace_back(run.prompt, run.setting);
  }
  EXPECT_EQ(cells, (std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 0}, {1, 1}, {2, 0}}));
}

TEST(StudyFile, OneSettingNeedsNoList) {
  const Study study = parsed("runs: 2\nexact: {mass: 0.5}\ncandidates: 0\n");
  ASSERT_EQ(study.settings.size(), 1U);
  EXPECT_EQ(study.exact->mass, 0.5);
  EXPECT_EQ(study.exact->max_nodes, 2000);
  EXPECT_EQ(study.n_candidates, 0);
  EXPECT_FALSE(parsed("exact: false\n").exact);
  EXPECT_TRUE(parsed("exact: true\n").exact);
}

// ------------------------------------------------------------------------------- overrides

TEST(StudyOverrides, ReplaceSettingsSweepsPromptsAndSeeds) {
  const std::string rest =
      "settings: {do_sample: true}\nsweep: {temperature: [0.2, 0.7], top_k: [1, 2]}\n"
      "variants: {greedy: {settings: {do_sample: false, top_k: 4}}}\nruns: 3\n";
  EXPECT_EQ(names_of(parsed(rest, {{"temperature=0.5"}, {}})),
            (Names{"top_k=1", "top_k=2", "greedy"}));
  EXPECT_EQ(parsed(rest, {{"temperature=0.5"}, {}}).settings[1].config.temperature, 0.5);
  // A name that said otherwise says so.
  EXPECT_EQ(names_of(parsed(rest, {{"top_k=9"}, {}})),
            (Names{"temperature=0.2", "temperature=0.7", "greedy (top_k=9)"}));
  EXPECT_EQ(names_of(parsed(rest, {{"top_k=1,5,50", "temperature=1"}, {}})),
            (Names{"top_k=1", "top_k=5", "top_k=50", "greedy"}));
  EXPECT_EQ(names_of(parsed("sweep: {top_k: [1, 2]}\n", {{"top_k=7"}, {}})), Names{"top_k=7"});
  const Study study = parsed(rest, {{"prompt=Say a=b", "base=7", "policy=running"}, 1});
  EXPECT_EQ(study.prompts.at(0).text, "Say a=b");
  EXPECT_EQ(study.seed_base, 7U);
  EXPECT_EQ(study.seed_policy, SeedPolicy::kRunning);
  EXPECT_EQ(plan_runs(study).size(), 5U);
  EXPECT_EQ(parsed("variants: {a: {seeds: [5, 6, 7]}}\n", {{}, 2}).settings[0].seeds,
            (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(parsed("", {{"eos_token_id=2,7", "threads=1"}, {}}).settings[0].config.eos_token_id,
            (TokenIds{2, 7}));
}

TEST(StudyOverrides, AreRefusedByTheirWord) {
  const std::string yaml = study_of("settings: {do_sample: true}\nvariants: {a: {}}\n");
  const auto message = [&](const std::string& word) { return refused(yaml, {{word}, {}}); };
  EXPECT_EQ(message("temprature=1"),
            "--set \"temprature=1\": \"temprature\": nothing has this name; did you mean "
            "temperature?");
  EXPECT_EQ(message("top_k"),
            "--set \"top_k\": no name and value found, want NAME=VALUE, as temperature=0.7 or "
            "top_k=1,5,50");
  EXPECT_EQ(message("top_k=x"), "--set \"top_k=x\": top_k: \"x\" found, want a whole number");
  EXPECT_EQ(message("top_k=-1"),
            "--set \"top_k=-1\": top_k: -1 found, want >= 0; 0 turns the filter off");
  EXPECT_NE(message("top_k=1,2").find("this study sweeps nothing"), std::string::npos);
  EXPECT_NE(message("seed=3").find("want base=7"), std::string::npos);
  EXPECT_NE(message("policy=both").find("want shared or running"), std::string::npos);
  EXPECT_NE(message("top_k=1,1").find("found twice"), std::string::npos);
  EXPECT_EQ(refused(yaml, {{}, 0}), "--runs: 0 found, want 1 to 100000");
}

// -------------------------------------------------------------------------------- refusals

TEST(StudyFile, RefusesWithLineNameAndAllowedValues) {
  expect_refused("setings: {}\n", "f.yaml:4: \"setings\": no such name here; ", "settings?");
  expect_refused("settings:\n  top_k: 1\n  tempreture: 1\n", "f.yaml:6: \"tempreture\"",
                 "did you mean temperature?");
  expect_refused("settings: {top_k: 1.5}\n", "f.yaml:4: top_k: 1.5 found", "a whole number");
  expect_refused("settings:\n  do_sample: true\n\n  temperature: -1\n", "f.yaml:7: temperature: -1",
                 "want > 0");
  expect_refused("settings: {do_sample: yes}\n", "f.yaml:4: do_sample: \"yes\" found",
                 "true or false");
  expect_refused("settings: {temperature: .nan}\n", "f.yaml:4: temperature: \".nan\" found",
                 "a finite number");
  expect_refused("settings: {temperature: 1e999}\n", "f.yaml:4: temperature: \"1e999\" found",
                 "a finite number");
  expect_refused("settings: {seed: 1}\n", "f.yaml:4: seed", "seeds: {base: 7}");
  expect_refused("settings: {num_return_sequences: 3, do_sample: true}\n", "f.yaml:4: num_return",
                 "runs: 3");
  expect_refused("sweep:\n  top_k:\n    - 1\n    - 1\n", "f.yaml:7: top_k", "twice");
  expect_refused("sweep: {do_sample: [true], min_p:\n  [0.1,\n   1.5]}\n", "f.yaml:6: min_p: 1.5",
                 "0 to 1");
  expect_refused("sweep: {top_k: 3}\n", "f.yaml:4: \"top_k\": 3 found", "a list");
  expect_refused("measures: [text]\n", "f.yaml:4: \"text\"", "did you mean texts?");
  expect_refused("seeds: {policy: fixed}\n", "f.yaml:4: policy", "shared or running");
  expect_refused("runs: 0\n", "f.yaml:4: runs: 0 found", "1 to 100000");
  expect_refused("exact: {mass: 0}\n", "f.yaml:4: mass: 0 found", "above 0 to 1");
  expect_refused("candidates: 1001\n", "f.yaml:4: candidates", "0 to 1000");
  expect_refused("execution: {threads: 0}\n", "f.yaml:4: threads", "1 to 1024");
  expect_refused("variants: {a: {prompt: other}}\n", "f.yaml:4: \"other\"", "no prompt");
  expect_refused("variants: {a: {seeds: [1], runs: 2}}\n", "f.yaml:4: runs: 2", "1 seeds");
  expect_refused("variants: [{name: a}, {name: a}]\n", "f.yaml:4: the setting \"a\"", "twice");
  expect_refused("variants: [{control: true}]\n", "f.yaml:4: variants", "without a name");
  expect_refused("chat: false\nmessages: [{role: user, content: x}]\n", "f.yaml:5: messages",
                 "beside prompt");
  expect_refused("studies: [top-k]\n", "f.yaml:3: prompt: found beside studies", "not both");
  EXPECT_EQ(refused("name: s\nquestion: q\n"),
            "f.yaml:1: prompt: not there, want prompt, prompts or messages");
  EXPECT_EQ(refused("name: A b\nquestion: q\nprompt: x\n"),
            "f.yaml:1: name: \"A b\" found, want at most 64 of a to z, 0 to 9 and -");
  EXPECT_NE(refused("name: c\nquestion: q\nstudies:\n - top-k\n - top-kk\n").find("f.yaml:5: "),
            std::string::npos);
}

TEST(StudyFile, RefusesMoreRunsThanItCouldHold) {
  std::string list;
  for (int i = 0; i < 1000; ++i) {
    list += fmt::format("{}{}", i == 0 ? "" : ",", i);
  }
  expect_refused("sweep: {top_k: [" + list + "], min_length: [" + list + "], neighbours: [1,2]}\n",
                 "f.yaml:4: sweep", "more than 100000 settings");
  expect_refused("runs: 100000\nsweep: {top_k: [1, 2]}\n", "f.yaml:1: 200000 runs",
                 "at most 100000");
}

TEST(StudyFile, RefusesHostileYaml) {
  expect_refused("notes: &a x\ntitle: *a\n", "f.yaml:4: an anchor", "");
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 40; ++i) {
    laughs += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}]\n", i, i - 1);
  }
  EXPECT_NE(refused(laughs).find("f.yaml:1: an anchor"), std::string::npos);
  expect_refused("notes: !!binary aGk=\n", "f.yaml:4: the tag", "binary");
  expect_refused("runs: 1\nruns: 2\n", "f.yaml:5: \"runs\" found twice", "");
  expect_refused("settings:\n\ttop_k: 1\n", "f.yaml:5: a tab", "spaces");
  expect_refused("---\nname: x\n", "f.yaml:", "second document");
  expect_refused("settings: " + std::string(40, '[') + std::string(40, ']') + "\n",
                 "f.yaml:4: ", "levels");
  EXPECT_NE(refused(std::string(100'000, '[')).find("f.yaml:1: this is not YAML"),
            std::string::npos);
  EXPECT_NE(refused(std::string(100'000, '{')).find("f.yaml:1: this is not YAML"),
            std::string::npos);
  expect_refused(std::string("notes: \0x\n", 10), "f.yaml:4: byte 0x00", "text file");
  expect_refused("notes: \"\\0\"\n", "f.yaml:4: notes", "byte 0");
  expect_refused("notes: \xc3(\n", "f.yaml:4: byte 0xc3", "UTF-8");
  EXPECT_NE(refused("\xff\xfen\0").find("UTF-16"), std::string::npos);
  EXPECT_NE(refused(std::string(kMostRuns * 11, ' ')).find("want at most 1048576"),
            std::string::npos);
  EXPECT_NE(refused("").find("nothing found"), std::string::npos);
  EXPECT_NE(refused("- a\n").find("a list found"), std::string::npos);
  EXPECT_NE(refused("{a: 1").find("this is not YAML"), std::string::npos);
  EXPECT_NE(refused("&a:, *name: [*b]\n").find("f.yaml:1: "), std::string::npos);
  EXPECT_NE(refused("? [a]\n: b\n").find("no name"), std::string::npos);
}

// -------------------------------------------------------------------------------- catalogue

TEST(BundledStudies, AreTheFilesOfTheFolderInTheOrderOfTheCourse) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(LOGITLAB_SOURCE_DIR) / "labs/studies")) {
    files.insert(entry.path().stem().string());
    const auto text = read_text_file(entry.path(), 1 << 20);
    const auto study = find_study(entry.path().stem().string());
    ASSERT_TRUE(study) << study.error().message;
    EXPECT_EQ(study->source, *text);
    EXPECT_EQ(study->name, entry.path().stem());
    EXPECT_FALSE(study->expectation.empty()) << study->name;
  }
  Names bundled;
  for (const BundledStudy& study : bundled_studies()) {
    bundled.emplace_back(study.name);
  }
  EXPECT_EQ(std::set<std::string>(bundled.begin(), bundled.end()), files);
  ASSERT_EQ(bundled.back(), "lesson-01");
  bundled.pop_back();
  EXPECT_EQ(find_study("lesson-01")->studies, bundled);
  EXPECT_GE(bundled.size(), 22U);
}

TEST(BundledStudies, AreFoundByNameOrPath) {
  const auto missing = find_study("temprature");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("did you mean temperature?"), std::string::npos);
  const auto path = find_study("./no-such-file.yaml");
  ASSERT_FALSE(path);
  EXPECT_EQ(path.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(find_study(std::string(LOGITLAB_SOURCE_DIR) + "/labs/studies/top-p.yaml"));
}

}  // namespace
}  // namespace logitlab
