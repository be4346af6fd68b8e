# shellcheck shell=bash
# The tests of ./lab: numbered steps, a table, one closing line. Sourced by ./lab.

# One step sets these; the table and the closing line add them up.
PASSED=0 FAILED=0 SKIPPED=0
TOTAL_PASSED=0 TOTAL_FAILED=0 TOTAL_SKIPPED=0
STEP=0 STEPS=0
TABLE=()
declare -gA BROKEN=() # sourced inside a function: -g

# step NAME COMMAND...: one numbered line, its counts, and the log's last lines when it goes wrong.
# A command that counts nothing is one check itself. It runs in a subshell, so that what ends the
# script elsewhere (a package that cannot be had) ends only the step.
step() {
  local name=$1 start=$SECONDS status=0 log counts title result
  shift
  STEP=$((STEP + 1))
  log=$LOGITLAB_HOME/logs/test-$(printf '%02d' "$STEP").log
  counts=$LOGITLAB_HOME/logs/.counts-$$
  title=$(printf '[%d/%d] %-28s' "$STEP" "$STEPS" "$name")
  printf '%s ' "$title"
  if [[ -t 1 && -t 2 ]]; then
    ticker "$title" "$log" &
    TICKER=$!
  fi
  rm -f "$counts"
  run_step "$counts" "$@" >"$log" 2>&1 </dev/null || status=$?
  if [[ -n $TICKER ]]; then
    stop_ticker
    printf '%s ' "$title"
  fi
  PASSED=0 FAILED=0 SKIPPED=0
  if [[ -s $counts ]]; then read -r PASSED FAILED SKIPPED <"$counts"; fi
  rm -f "$counts"
  if ((PASSED + FAILED + SKIPPED == 0 && status == 0)); then PASSED=1; fi
  if ((status != 0 && FAILED == 0)); then FAILED=1; fi
  result=ok
  if ((FAILED > 0)); then
    result=BAD
    BROKEN[$name]=1
  fi
  printf '%s  %d s\n' "$result" $((SECONDS - start))
  if ((FAILED > 0)); then
    tail -n 60 "$log" | sed 's/^/    | /'
    printf '    the whole log: %s\n' "$log"
  fi
  TABLE+=("$(printf '%-28s %-6s %6d %6d %7d %7d' "$name" "$result" "$PASSED" "$FAILED" "$SKIPPED" \
    $((SECONDS - start)))")
  TOTAL_PASSED=$((TOTAL_PASSED + PASSED)) TOTAL_FAILED=$((TOTAL_FAILED + FAILED))
  TOTAL_SKIPPED=$((TOTAL_SKIPPED + SKIPPED))
}

run_step() (
  # shellcheck disable=SC2034  # IN_STEP is read in ./lab
  counts=$1 status=0 IN_STEP=1 PASSED=0 FAILED=0 SKIPPED=0 TICKER=
  shift
  trap clean_up EXIT
  "$@" || status=$?
  printf '%d %d %d\n' "$PASSED" "$FAILED" "$SKIPPED" >"$counts"
  exit "$status"
)

# after STEPS NAME COMMAND...: only if the earlier steps (separated by commas) went well.
after() {
  local needed=$1 name=$2 earlier
  shift
  local IFS=,
  for earlier in $needed; do
    if [[ -n ${BROKEN[$earlier]:-} ]]; then
      STEP=$((STEP + 1))
      BROKEN[$name]=1
      printf '[%d/%d] %-28s not run, see: %s\n' "$STEP" "$STEPS" "$name" "$earlier"
      TABLE+=("$(printf '%-28s %-6s' "$name" 'not run')")
      return 0
    fi
  done
  unset IFS
  step "$@"
}

# The closing line stands alone and last.
summary() {
  printf '\n%-28s %-6s %6s %6s %7s %7s\n' step result passed failed skipped seconds
  printf '%s\n' "${TABLE[@]}"
  printf '\n%d passed, %d failed' "$TOTAL_PASSED" "$TOTAL_FAILED"
  if ((TOTAL_SKIPPED > 0)); then printf ', %d skipped' "$TOTAL_SKIPPED"; fi
  printf '\n'
  ((TOTAL_FAILED == 0))
}

# count JUNIT_FILE [GTEST_FOLDER]: sets the step's counts.
count() {
  local counted failed
  counted=$(python3 "$ROOT/tools/count_tests.py" "$@") || return
  read -r PASSED FAILED SKIPPED <<<"${counted%%$'\n'*}"
  failed=$(tail -n +2 <<<"$counted")
  if [[ -n $failed ]]; then printf '\nnot passed:\n%s\n' "$failed"; fi
}

cpp_files() {
  local folders=() name
  for name in src include apps tests bench crates; do
    if [[ -d $ROOT/$name ]]; then folders+=("$ROOT/$name"); fi
  done
  find "${folders[@]}" -name target -prune -o \
    \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0
}

check_format() { cpp_files | xargs -0 -r clang-format-14 --dry-run -Werror; }

check_lint() {
  local name status=0
  for name in layers sizes style; do
    if python3 "$ROOT/tools/check_$name.py" "$ROOT"; then
      PASSED=$((PASSED + 1))
    else
      FAILED=$((FAILED + 1)) status=1
    fi
  done
  return "$status"
}

check_scripts() {
  local scripts=("$ROOT/lab" "$ROOT/.ci/run") script status=0 line
  while IFS= read -r script; do scripts+=("$script"); done < <(find "$ROOT/tools" "$ROOT/bench" -name '*.sh')
  for script in "${scripts[@]}"; do
    if (cd "$ROOT" && shellcheck -x "$script"); then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)) status=1; fi
  done
  local out=$LOGITLAB_HOME/logs/unittest.log bad
  (cd "$ROOT/tests/lab" && exec python3 -m unittest -v) >"$out" 2>&1 || status=1
  cat "$out"
  line=$(sed -n 's/^Ran \([0-9]*\) tests\? in .*/\1/p' "$out" | tail -n 1)
  bad=$(grep -cE '^(FAIL|ERROR): ' "$out" || true)
  local skipped
  skipped=$(sed -n 's/.*skipped=\([0-9]*\).*/\1/p' "$out" | tail -n 1)
  if [[ -z $line || $line == 0 ]]; then
    echo 'tests/lab ran no test'
    return 1
  fi
  SKIPPED=${skipped:-0} FAILED=$((FAILED + bad))
  PASSED=$((PASSED + line - bad - SKIPPED))
  return "$status"
}

# ctest_run PRESET [ctest arguments]
ctest_run() {
  local preset=$1 results=$LOGITLAB_HOME/logs/ctest-$1 status=0
  shift
  rm -rf "$results"
  mkdir -p "$results/gtest"
  GTEST_OUTPUT=xml:$results/gtest/ GTEST_COLOR=no ctest --test-dir "$ROOT/build/$preset" \
    --output-on-failure --no-tests=error -j "$(nproc)" --output-junit "$results/junit.xml" "$@" ||
    status=$?
  count "$results/junit.xml" "$results/gtest" || status=1
  return "$status"
}

fuzz_targets() {
  find "$ROOT/build/fuzz/tests/fuzz" -maxdepth 1 -type f -perm -u+x -name 'fuzz_*' ! -name '*_test' | sort
}

# fuzz_run SECONDS: each target in turn, from the seeds beside its source and what was found before.
fuzz_run() {
  local seconds=$1 target name corpus status=0 seeds
  local crashes=$LOGITLAB_HOME/fuzz/crashes
  mkdir -p "$crashes"
  for target in $(fuzz_targets); do
    name=$(basename "$target")
    corpus=$LOGITLAB_HOME/fuzz/$name
    mkdir -p "$corpus"
    seeds=()
    local seeds_of
    for seeds_of in "$ROOT/tests/fuzz/corpus/$name" "$ROOT/tests/fuzz/corpus/${name#fuzz_}" \
      "$ROOT/tests/fuzz/seeds/${name#fuzz_}"; do
      if [[ -d $seeds_of ]]; then seeds+=("$seeds_of"); fi
    done
    printf '== %s, %s s\n' "$name" "$seconds"
    if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
      -print_final_stats=1 -verbosity=1 -artifact_prefix="$crashes/$name-" "$corpus" \
      ${seeds[@]+"${seeds[@]}"}; then
      PASSED=$((PASSED + 1))
    else
      FAILED=$((FAILED + 1)) status=1
      printf '%s: the input is in %s\n' "$name" "$crashes"
    fi
  done
  if ((PASSED + FAILED == 0)); then
    echo 'build/fuzz/tests/fuzz has no target'
    return 1
  fi
  return "$status"
}

# What tests may ask for. A test that needs one and has none says that it is skipped.
export_test_environment() {
  local preset=$1
  LOGITLAB_BIN=$(preset_binary "$preset")
  LOGITLAB_DEFAULT_MODEL=$(model_path)
  export LOGITLAB_BIN LOGITLAB_DEFAULT_MODEL
  export LOGITLAB_TEXT_PROBE=$ROOT/build/$preset/src/text/text_probe
  export LOGITLAB_SEARCH_PROBE=$ROOT/build/$preset/src/generate/search_probe
  export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
  if [[ -d $ROOT/../shared ]]; then
    LOGITLAB_SHARED=$(cd "$ROOT/../shared" && pwd -P)
    export LOGITLAB_SHARED
  fi
}

test_selected() {
  STEPS=2
  step 'build dev' build dev
  after 'build dev' 'tests dev' ctest_run dev "$@"
  summary
}

test_all() {
  local fuzz_seconds=10 asan_labels=(-L 'unit|hostile')
  if [[ ${1:-} == --all ]]; then fuzz_seconds=60 asan_labels=(-LE 'oracle|bench'); fi
  STEPS=11
  step 'format' check_format
  step 'lint' check_lint
  step 'scripts' check_scripts
  step 'default model' fetch_model
  step 'build dev' build dev
  after 'build dev' 'tests dev' ctest_run dev -LE oracle
  step 'build asan' build asan
  after 'build asan' 'tests asan' ctest_run asan "${asan_labels[@]}"
  step 'CUDA code' build cuda-check --target cuda_code
  step 'build fuzz' build fuzz --target fuzz_targets
  after 'build fuzz' "fuzz, $fuzz_seconds s a target" fuzz_run "$fuzz_seconds"
  summary
}

# The environment is complete or absent: the file `complete` is written last.
make_oracle_environment() {
  local requirements=$ROOT/tools/oracle/requirements.txt venv=$1 old
  [[ ! -f $venv/complete ]] || return 0
  exec 9>"$LOGITLAB_HOME/.oracle-lock"
  flock 9
  if [[ -f $venv/complete ]]; then return 0; fi
  for old in "$LOGITLAB_HOME"/oracle-venv-*; do rm -rf "$old"; done
  python3 -m venv "$venv" || return
  "$venv/bin/python" -m pip install --progress-bar off --no-deps -r "$requirements" 9>&- || return
  "$venv/bin/python" -c 'import torch, transformers; print(torch.__version__)' || return
  touch "$venv/complete"
  exec 9>&-
}

oracle_run() {
  local venv=$1 junit=$LOGITLAB_HOME/logs/oracle.xml status=0
  shift
  rm -f "$junit"
  cd "$ROOT" || return
  "$venv/bin/python" -m pytest tests/oracle -q -p no:cacheprovider --junitxml="$junit" "$@" ||
    status=$?
  count "$junit" || status=1
  return "$status"
}

test_oracle() {
  local venv
  venv=$LOGITLAB_HOME/oracle-venv-$(sha256sum "$ROOT/tools/oracle/requirements.txt" | cut -c1-12)
  if [[ ! -f $venv/complete ]]; then say "fetching torch and transformers into $venv, about 1.5 GB"; fi
  STEPS=4
  step 'default model' fetch_model
  step 'torch and transformers' make_oracle_environment "$venv"
  step 'build release' build release --target logitlab text_probe search_probe
  export_test_environment release
  after 'default model,torch and transformers,build release' 'oracle' oracle_run "$venv" "$@"
  summary
}

run_tests() {
  use_own_caches
  local mode=${1:-}
  if [[ $mode == --oracle ]]; then
    shift
    ensure "$BUILD_NEEDS$MODEL_NEEDS"
    ensure_rust
    test_oracle "$@"
    return
  fi
  ensure "$BUILD_NEEDS$TEST_NEEDS$FUZZ_NEEDS"
  ensure_rust
  export_test_environment dev
  case $mode in
    '' | --all) test_all "$mode" ;;
    *) test_selected "$@" ;;
  esac
}

run_fuzz() {
  local seconds=${1:-60}
  [[ $seconds =~ ^[0-9]+$ ]] || {
    say "fuzz $seconds: want a number of seconds"
    exit "$EXIT_USAGE"
  }
  use_own_caches
  ensure "$BUILD_NEEDS$FUZZ_NEEDS"
  STEPS=2
  step 'build fuzz' build fuzz --target fuzz_targets
  after 'build fuzz' "fuzz, $seconds s a target" fuzz_run "$seconds"
  summary
}

run_lint() {
  use_own_caches
  ensure "$TEST_NEEDS"
  local status=0
  check_format || status=1
  check_lint || status=1
  return "$status"
}

run_format() {
  use_own_caches
  ensure "$TEST_NEEDS"
  cpp_files | xargs -0 -r clang-format-14 -i
}
