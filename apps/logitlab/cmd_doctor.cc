// doctor: what this machine has, and what is missing for what.
#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "backend/backend.h"
#include "backend/gpu.h"
#include "base/env.h"
#include "base/utf8.h"
#include "build_version.h"
#include "command.h"
#include "formats/hub_cache.h"
#include "formats/model_source.h"
#include "json_out.h"
#include "text_layout.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

enum class Health { kOk, kWarn, kMissing };

std::string_view name(Health health) {
  switch (health) {
    case Health::kOk:
      return "ok";
    case Health::kWarn:
      return "warn";
    case Health::kMissing:
      return "missing";
  }
  return "?";
}

Style style_of(Health health) {
  return health == Health::kOk ? Style::kGood : Style::kWarn;
}

struct Finding {
  std::string group;
  std::string what;
  Health health = Health::kOk;
  std::string found;
  std::string hint;  // what to do; empty when there is nothing to do
  Json values = Json::object();
};

constexpr size_t kGiB = size_t{1} << 30;

void examine_processor(std::vector<Finding>* findings) {
  Finding cpu{"processor", "model", Health::kOk, cpu_model_name(), "", {}};
  cpu.values["model"] = cpu.found;
  findings->push_back(std::move(cpu));

  const int processors = available_processors();
  Finding threads{"processor", "threads",
                  Health::kOk, fmt::format("{} available to this process", processors),
                  "",          {}};
  threads.values["available_processors"] = processors;
  if (processors == 1) {
    threads.health = Health::kWarn;
    threads.hint = "one thread: expect about half of what two would give";
  }
  findings->push_back(std::move(threads));

  const std::vector<std::string> isas = cpu_isas();
  const auto forced = env_var("LOGITLAB_CPU_ISA");
  const auto backend = make_backend("auto");
  Finding isa{"processor", "instruction set", Health::kOk, "", "", {}};
  isa.values["available"] = isas;
  isa.values["forced"] = forced ? Json(*forced) : Json();
  if (backend) {
    isa.values["device"] = std::string((*backend)->name());
    isa.values["chosen"] = std::string((*backend)->isa());
    isa.found = fmt::format("{} (device {}){}; usable: {}", (*backend)->isa(), (*backend)->name(),
                            forced ? ", forced by LOGITLAB_CPU_ISA" : "", fmt::join(isas, " "));
  } else {
    isa.health = Health::kWarn;
    isa.values["chosen"] = Json();
    isa.found = backend.error().message;
    isa.hint =
        "unset LOGITLAB_CPU_ISA, or set it to one of: " + fmt::format("{}", fmt::join(isas, " "));
  }
  findings->push_back(std::move(isa));
}

void examine_memory(std::vector<Finding>* findings) {
  const MemoryReading memory = read_memory();
  Finding finding{
      "memory",
      "available",
      Health::kOk,
      fmt::format("{} of {}", human_bytes(memory.available_bytes), human_bytes(memory.total_bytes)),
      "",
      {}};
  finding.values["available_bytes"] = memory.available_bytes;
  finding.values["total_bytes"] = memory.total_bytes;
  if (memory.available_bytes < kGiB) {
    finding.health = Health::kWarn;
    finding.hint =
        "the default model wants about 0.5 GiB; `logitlab inspect` says what another "
        "one needs";
  }
  findings->push_back(std::move(finding));
}

Finding gpu_finding(const GpuDevice& gpu, const GpuReport& report) {
  Finding finding{"gpu",
                  fmt::format("cuda:{}", gpu.ordinal),
                  gpu.why_not.empty() ? Health::kOk : Health::kWarn,
                  fmt::format("{}, {} free of {}, {} multiprocessors, compute capability {}.{}, "
                              "driver for CUDA {}",
                              gpu.name, human_bytes(gpu.free_bytes), human_bytes(gpu.total_bytes),
                              gpu.n_multiprocessors, gpu.capability_major, gpu.capability_minor,
                              report.driver_version),
                  gpu.why_not,
                  {}};
  finding.values["name"] = gpu.name;
  finding.values["total_bytes"] = gpu.total_bytes;
  finding.values["free_bytes"] = gpu.free_bytes;
  finding.values["multiprocessors"] = gpu.n_multiprocessors;
  finding.values["compute_capability"] =
      fmt::format("{}.{}", gpu.capability_major, gpu.capability_minor);
  finding.values["driver_cuda"] = report.driver_version;
  finding.values["build_cuda"] = report.runtime_version;
  finding.values["build_architectures"] = report.architectures;
  finding.values["usable_by_this_build"] = gpu.why_not.empty();
  return finding;
}

void examine_gpu(std::vector<Finding>* findings) {
  std::vector<std::string> devices;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    devices.push_back(entry.path().filename().string());
  }
  if (devices.empty()) {
    for (int i = 0; i < 16; ++i) {
      const std::string path = fmt::format("/dev/nvidia{}", i);
      if (fs::exists(path, ignored)) {
        devices.push_back(path);
      }
    }
  }
  const GpuReport report = examine_gpus();
  for (const GpuDevice& gpu : report.devices) {
    findings->push_back(gpu_finding(gpu, report));
  }
  if (!report.devices.empty()) {
    return;
  }
  Finding finding{"gpu", "NVIDIA", Health::kMissing, "none found", "", {}};
  finding.values["devices"] = devices;
  finding.values["usable_by_this_build"] = false;
  if (!devices.empty()) {
    finding.health = Health::kWarn;
    finding.found = fmt::format("{} ({})", devices.size(), fmt::join(devices, ", "));
    finding.hint = report.is_built
                       ? report.reason
                       : "this build has no CUDA, so models run on the CPU; `./lab build cuda` "
                         "makes one that has";
  } else {
    finding.hint = report.is_built
                       ? report.reason
                       : "none is needed: models run on the CPU, and this build has no CUDA";
  }
  findings->push_back(std::move(finding));
}

// Of the regular files below `folder`; links are not followed.
size_t folder_bytes(const fs::path& folder) {
  size_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied,
                                           error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->is_symlink(ignored) || !it->is_regular_file(ignored)) {
      continue;
    }
    const uintmax_t size = it->file_size(ignored);
    bytes += ignored ? 0 : static_cast<size_t>(size);
  }
  return bytes;
}

// One cached revision: whole, or what is not there.
Finding examine_revision(const std::string& repo_id, const std::string& revision,
                         const fs::path& root) {
  Finding finding{"models", repo_id, Health::kOk, "", "", {}};
  finding.values["repo_id"] = repo_id;
  finding.values["revision"] = revision;
  const auto snapshot = resolve_snapshot(repo_id, revision, root);
  const auto files = snapshot
                         ? list_model_files(snapshot->folder)
                         : Result<std::vector<ModelFile>>(tl::unexpected<Error>(snapshot.error()));
  if (!files) {
    finding.health = Health::kWarn;
    finding.found = fmt::format("{}: {}", revision, files.error().message);
    finding.values["complete"] = false;
    return finding;
  }
  size_t bytes = 0;
  std::vector<std::string> missing;
  for (const ModelFile& file : *files) {
    bytes += file.bytes;
    if (file.required && file.presence != FilePresence::kPresent) {
      missing.push_back(fmt::format("{} ({})", file.name, name(file.presence)));
    }
  }
  finding.values["commit"] = snapshot->commit;
  finding.values["bytes"] = bytes;
  finding.values["complete"] = missing.empty();
  finding.values["missing"] = missing;
  const std::string label = revision == snapshot->commit
                                ? revision.substr(0, 12)
                                : fmt::format("{} at {}", revision, snapshot->commit.substr(0, 12));
  finding.found = fmt::format("{}, {}", label, human_bytes(bytes));
  if (missing.empty()) {
    finding.found += ", complete";
  } else {
    finding.health = Health::kWarn;
    finding.found += fmt::format(", partial: {} files are not here", missing.size());
    finding.hint = fmt::format("{}", fmt::join(missing, ", "));
  }
  return finding;
}

void examine_hub(std::vector<Finding>* findings) {
  const fs::path root = hub_cache_root();
  std::error_code ignored;
  Finding cache{"caches", "Hugging Face hub", Health::kOk, root.string(), "", {}};
  cache.values["path"] = root.string();
  const bool exists = fs::is_directory(root, ignored);
  cache.values["exists"] = exists;
  if (!exists) {
    cache.health = Health::kMissing;
    cache.found += " (not there)";
    cache.hint =
        "only needed for --model org/name; HF_HUB_CACHE, HF_HOME or --cache-dir name "
        "another place";
    findings->push_back(std::move(cache));
    return;
  }
  const size_t bytes = folder_bytes(root);
  cache.values["bytes"] = bytes;
  cache.found += fmt::format(" ({})", human_bytes(bytes));
  findings->push_back(std::move(cache));
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(root, ignored)) {
    if (entry.is_directory(ignored)) {
      folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) {
    const auto repo_id = repo_id_of_folder(folder.filename().string());
    if (!repo_id) {
      continue;
    }
    const std::vector<std::string> revisions = available_revisions(folder);
    if (revisions.empty()) {
      findings->push_back({"models",
                           *repo_id,
                           Health::kWarn,
                           "no snapshot",
                           "the download was not finished",
                           {{"repo_id", *repo_id}, {"complete", false}}});
    }
    for (const std::string& revision : revisions) {
      findings->push_back(examine_revision(*repo_id, revision, root));
    }
  }
}

void examine_caches(std::vector<Finding>* findings) {
  const fs::path home = logitlab_home();
  std::error_code ignored;
  const bool exists = fs::is_directory(home, ignored);
  Finding cache{"caches", "logitlab", Health::kOk, home.string(), "", {}};
  cache.values["path"] = home.string();
  cache.values["exists"] = exists;
  if (exists) {
    const size_t bytes = folder_bytes(home);
    cache.values["bytes"] = bytes;
    cache.found += fmt::format(" ({})", human_bytes(bytes));
  } else {
    cache.health = Health::kMissing;
    cache.found += " (not there)";
    cache.hint = "`./lab first-contact` makes it; LOGITLAB_HOME names another place";
  }
  findings->push_back(std::move(cache));
  examine_hub(findings);

  const fs::path path = default_model_path();
  Finding model{"models", "default", Health::kOk, path.string(), "", {}};
  model.values["path"] = path.string();
  const bool is_there = fs::is_regular_file(path, ignored);
  model.values["complete"] = is_there;
  if (is_there) {
    const auto bytes = static_cast<size_t>(fs::file_size(path, ignored));
    model.values["bytes"] = bytes;
    model.found += fmt::format(" ({})", human_bytes(bytes));
  } else {
    model.health = Health::kMissing;
    model.found += " (not there)";
    model.hint = "`./lab first-contact` takes it out of its package";
  }
  findings->push_back(std::move(model));
}

void examine_terminal(const Terminal& terminal, std::vector<Finding>* findings) {
  const std::string locale =
      env_var("LC_ALL").value_or(env_var("LC_CTYPE").value_or(env_var("LANG").value_or("")));
  std::string lower;
  for (const char c : locale) {
    lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  const bool is_utf8 =
      lower.find("utf-8") != std::string::npos || lower.find("utf8") != std::string::npos;
  Finding finding{"terminal",
                  "locale",
                  is_utf8 ? Health::kOk : Health::kWarn,
                  locale.empty() ? "not set" : locale,
                  "",
                  {}};
  finding.values["locale"] = locale;
  if (!is_utf8) {
    finding.hint = "output is UTF-8 all the same; if letters look wrong, set LANG=C.UTF-8";
  }
  findings->push_back(std::move(finding));
  Finding screen{
      "terminal",
      "standard output",
      Health::kOk,
      fmt::format("{}, {} columns", terminal.out_is_terminal() ? "terminal" : "file or pipe",
                  terminal.columns()),
      "",
      {}};
  screen.values["is_terminal"] = terminal.out_is_terminal();
  screen.values["columns"] = terminal.columns();
  findings->push_back(std::move(screen));
}

void print_findings(Terminal* terminal, const std::vector<Finding>& findings) {
  std::string group;
  Table table({{"", Align::kLeft}, {"", Align::kLeft}, {"", Align::kLeft}});
  const auto end_group = [&] {
    terminal->print(table.render(*terminal, 2));
    table = Table({{"", Align::kLeft}, {"", Align::kLeft}, {"", Align::kLeft}});
  };
  for (const Finding& finding : findings) {
    if (finding.group != group) {
      end_group();
      terminal->print((group.empty() ? "" : "\n") +
                      terminal->paint(Style::kHeading, finding.group) + "\n");
      group = finding.group;
    }
    table.add_row({{std::string(name(finding.health)), style_of(finding.health)},
                   {finding.what, Style::kBold},
                   finding.found});
    if (!finding.hint.empty()) {
      table.add_row({std::string(), std::string(), {finding.hint, Style::kDim}});
    }
  }
  end_group();
}

Result<int> run_doctor(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  std::vector<Finding> findings;
  Finding build{"build",
                "logitlab",
                Health::kOk,
                fmt::format("{} commit {}, {}, {}", build_version(), build_commit(),
                            build_compiler(), build_type()),
                "",
                {}};
  build.values["version"] = std::string(build_version());
  build.values["commit"] = std::string(build_commit());
  build.values["compiler"] = std::string(build_compiler());
  build.values["type"] = std::string(build_type());
  findings.push_back(std::move(build));
  examine_processor(&findings);
  examine_memory(&findings);
  examine_gpu(&findings);
  examine_caches(&findings);
  examine_terminal(terminal, &findings);
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return a.group == "caches" && b.group == "models";
  });
  if (!invocation.json) {
    print_findings(&terminal, findings);
    return 0;
  }
  Json document = Json::object();
  document["findings"] = Json::array();
  for (const Finding& finding : findings) {
    Json item = Json::object();
    item["group"] = finding.group;
    item["name"] = finding.what;
    item["status"] = std::string(name(finding.health));
    item["found"] = finding.found;
    item["hint"] = finding.hint;
    item["values"] = finding.values;
    document["findings"].push_back(std::move(item));
  }
  print_json(&terminal, document);
  return 0;
}

Action declare_doctor(CLI::App& /*app*/) {
  return run_doctor;
}

}  // namespace

Command doctor_command() {
  return {"doctor",
          "what this machine has: processor, memory, GPU, caches, models",
          "Looks at the processor and its instruction sets, memory, GPUs, the caches where models "
          "are looked for, the models in them and the terminal. Every line says ok, warn or "
          "missing, and what to do where something can be done. Nothing is changed, nothing is "
          "downloaded, and the exit code is 0 whatever was found.\n\n"
          "LOGITLAB_CPU_ISA forces an instruction set, LOGITLAB_HOME moves this program's cache, "
          "HF_HOME and HF_HUB_CACHE move the one of the Hugging Face libraries.",
          {{"doctor", "the findings, for people"},
           {"doctor --json", "the same with numbers, for a bug report or a script"}},
          declare_doctor};
}

}  // namespace logitlab
