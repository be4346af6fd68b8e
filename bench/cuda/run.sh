#!/usr/bin/env bash
# Everything that needs a GPU, in one go of under ten minutes: checks of the kernels alone, whole
# models against the reference, memory and race checkers over both, 1,000 tokens twice bit for bit,
# and the figures of Nemotron-3-Nano-30B-A3B at full size (random weights made on the device), each
# with the read rate measured in the same run.
#
# usage: bench/cuda/run.sh [--only checks|figures|transformers] [--transformers] [RESULTS]
#   RESULTS         folder for the results: a new one, an empty one, or one of an earlier run, which
#                   is emptied. Default: build/cuda-results here
#   --only          one part; without it figures, then checks
#   --transformers  compares with transformers at full size too (compare_transformers.py)
#
# Programs come from build/cuda-bundle (tools/bundle_cuda.sh) when it is there, else from
# build/cuda; decode_check and prefill_check are built with nvcc when neither has them.
# RESULTS gets NAME.txt (output) and, where there are figures, NAME.json of each step, and
# summary.json with all of them; every JSON names the device and the commit. Without a GPU that the
# build can use it ends at once. Exit code 1: a step went wrong; 2: wrong usage.
set -uo pipefail
readonly CALLER=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# Seconds after which no step may still run. Checks run side by side, so many at once: more than two
# take turns on the device and are no faster.
readonly DEADLINE=${LOGITLAB_DEADLINE:-570} JOBS=${LOGITLAB_JOBS:-2}
readonly BUNDLE=build/cuda-bundle CHECKS=build/cuda-checks
MODEL=logitlab/nemotron-3-nano
CACHE=${LOGITLAB_SPARSE_CACHE:-${TMPDIR:-/tmp}/logitlab-sparse}
RESULTS=
PARTS='figures checks'

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

while (($# > 0)); do
  case $1 in
    --only)
      [[ ${2:-} =~ ^(checks|figures|transformers)$ ]] || usage
      PARTS=$2
      shift
      ;;
    --transformers) PARTS+=' transformers' ;;
    -*) usage ;;
    *)
      [[ -n $1 && -z $RESULTS ]] || usage
      RESULTS=$(realpath -m -- "$CALLER/$1")
      if [[ $1 == /* ]]; then RESULTS=$(realpath -m -- "$1"); fi
      ;;
  esac
  shift
done
RESULTS=${RESULTS:-$PWD/build/cuda-results}

# ---------------------------------------------------------------------------- programs

LIBRARIES=
if [[ -x $BUNDLE/run ]]; then
  BUNDLE_FOLDER=$("$BUNDLE/run" --folder) || exit 1
  LIBRARIES=$BUNDLE_FOLDER/lib
fi

# path_of PROGRAM: where it is; false when it is not there.
path_of() {
  local folder
  for folder in ${LIBRARIES:+"$BUNDLE_FOLDER/bin"} build/cuda/apps/logitlab \
    build/cuda/tests/conformance/cuda build/cuda/bench/cuda "$CHECKS"; do
    if [[ -f $folder/$1 && -x $folder/$1 ]]; then
      printf '%s/%s' "$folder" "$1"
      return 0
    fi
  done
  printf '%s is in no folder of builds\n' "$1" >&2
  return 1
}

# program [--under CHECKER...] -- PROGRAM ARGUMENTS...
program() {
  local under=() path
  while [[ $1 != -- ]]; do
    under+=("$1")
    shift
  done
  path=$(path_of "$2") || return
  shift 2
  LD_LIBRARY_PATH=$LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    exec ${under[@]+"${under[@]}"} "$path" "$@"
}

find_tool() {
  command -v "$1" || {
    [[ -x /usr/local/cuda/bin/$1 ]] && printf '/usr/local/cuda/bin/%s' "$1"
  }
}

build_check() {
  local name=$1 nvcc
  shift
  nvcc=$(find_tool nvcc) || { echo 'no nvcc' && return 1; }
  mkdir -p "$CHECKS"
  "$nvcc" -std=c++20 -O3 -lineinfo -gencode arch=compute_90a,code=sm_90a -Isrc -Ibench/cuda \
    -x cu "bench/cuda/$name.cu" "$@" -o "$CHECKS/$name.new" &&
    mv "$CHECKS/$name.new" "$CHECKS/$name"
}

# ---------------------------------------------------------------------------- steps

# step NAME SECONDS COMMAND...: runs it within its time and the deadline; its output goes to
# RESULTS/NAME.txt, what became of it to RESULTS/.steps/NAME: exit code, seconds, limit, when.
step() {
  local name=$1 limit=$2 start=$SECONDS status=0 left=$((DEADLINE - SECONDS))
  shift 2
  if ((limit > left)); then limit=$left; fi
  if ((limit < 5)); then
    echo 'not run: no time was left' >"$RESULTS/$name.txt"
    printf '124 0 0 %s\n' "$EPOCHREALTIME" >"$RESULTS/.steps/$name"
    printf '%-28s not run, no time is left\n' "$name"
    return 0
  fi
  bounded "$limit" "$@" >"$RESULTS/$name.txt" 2>&1 &
  CHILD=$!
  wait "$CHILD" || status=$?
  printf '%d %d %d %s\n' "$status" $((SECONDS - start)) "$limit" "$EPOCHREALTIME" \
    >"$RESULTS/.steps/$name"
  printf '%-28s exit %d, %d s\n' "$name" "$status" $((SECONDS - start))
  if ((status != 0)); then tail -n 8 "$RESULTS/$name.txt" | cut -c1-300 | sed 's/^/    | /'; fi
}

# bounded SECONDS COMMAND...: a function of this script or a program, ended with all that it started
# when its time is over (exit 124). It takes the place of its shell, so that a signal reaches it.
bounded() {
  local seconds=$1
  shift
  if [[ $(type -t "$1") == function ]]; then
    exec timeout --kill-after=5 "$seconds" bash -c "$FUNCTIONS"'; "$@"' step "$@"
  else
    exec timeout --kill-after=5 "$seconds" "$@"
  fi
}

# beside NAME SECONDS COMMAND...: a step at the same time as the others, at most JOBS at once.
beside() {
  while (($(jobs -rp | wc -l) >= JOBS)); do wait -n; done
  {
    trap 'stop 143' TERM
    step "$@"
  } &
}

# stop CODE: ends with what runs. Steps are in the background, where Ctrl-C does not reach them, and
# waited for, which a trap interrupts.
CHILD=
stop() {
  trap '' INT TERM
  # shellcheck disable=SC2046  # words
  kill -TERM $CHILD $(jobs -pr) 2>/dev/null
  wait
  exit "$1"
}

# sanitized TOOL PROGRAM ARGUMENTS...
sanitized() {
  local tool=$1 sanitizer
  shift
  sanitizer=$(find_tool compute-sanitizer) || { echo 'no compute-sanitizer' && return 1; }
  program "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 -- "$@"
}

# bench NAME ARGUMENTS...: the figures of one setting to RESULTS/NAME.json.
bench() {
  local target=$RESULTS/$1.json
  shift
  (program -- logitlab bench --device cuda:0 --random-weights --no-trace --json --profile \
    --model "$MODEL" --cache-dir "$CACHE" "$@") >"$target" || return
  cut -c1-400 "$target"
}

doctor() {
  (program -- logitlab doctor --json) >"$RESULTS/doctor.json" || return
  (program -- logitlab doctor) || return
  if lacks_gpu; then echo 'no GPU that this build can use' && return 1; fi
}

# Whether doctor looked and found none.
lacks_gpu() {
  [[ -s $RESULTS/doctor.json ]] &&
    ! grep -q '"usable_by_this_build": *true' "$RESULTS/doctor.json"
}

# A test that is skipped for want of a GPU has not passed.
conformance() {
  local status=0
  (program -- cuda_conformance) || status=$?
  if ((status == 0)) && grep -q '\[  SKIPPED \]' "$RESULTS/conformance.txt"; then status=1; fi
  return "$status"
}

# The ids that `logitlab generate` gives on the device, greedy and drawn, against the processor's.
generate_alike() {
  local model=$RESULTS/.tiny device draw status=0
  python3 tools/make_checkpoint.py "$model" --preset tiny-nemotron-h --plain || return
  for draw in '' '--do-sample --temperature 0.8 --seed 7'; do
    for device in cpu cuda:0; do
      # shellcheck disable=SC2086  # words
      (program -- logitlab generate abc --raw --model "$model" --device "$device" \
        --max-new-tokens 60 --json $draw) | grep '^  "ids"' | tee "$RESULTS/.ids-$device"
    done
    [[ -s $RESULTS/.ids-cpu ]] && cmp "$RESULTS/.ids-cpu" "$RESULTS/.ids-cuda:0" || status=1
  done
  return "$status"
}

# With the values of norms and the like, without the data of matrices: with all zero, a mixture
# would choose the same experts for every token and read less than it does.
checkpoint() {
  python3 tools/make_checkpoint.py "$CACHE" --preset nemotron-3-nano --sparse-matrices
}

transformers() {
  python3 bench/cuda/compare_transformers.py --out "$RESULTS/transformers.json" \
    --program "$(path_of device_logits)" ${LIBRARIES:+--libraries "$LIBRARIES"}
}

# ---------------------------------------------------------------------------- parts

build_checks() {
  local check
  for check in decode prefill; do
    path_of "${check}_check" >/dev/null 2>&1 ||
      beside "build-$check-check" 200 build_check "${check}_check" src/backend/cuda/"$check"*.c[cu]
  done
  wait
}

run_checks() {
  # The long ones first. Racecheck is slow: it gets the smallest models that take every path.
  beside racecheck-layers 240 sanitized racecheck decode_check check layers
  beside racecheck-stacks 240 sanitized racecheck decode_check check stacks
  beside racecheck-prefill 240 sanitized racecheck prefill_check check small
  beside memcheck-decode 200 sanitized memcheck decode_check check
  beside initcheck-decode 150 sanitized initcheck decode_check check
  beside memcheck-prefill 200 sanitized memcheck prefill_check check
  beside initcheck-prefill 150 sanitized initcheck prefill_check check
  beside memcheck-models 150 sanitized memcheck cuda_conformance --gtest_brief=1 \
    '--gtest_filter=CudaModel.LastRows*:CudaModel.AFork*:CudaModel.Keys*'
  beside conformance 200 conformance
  beside decode-check 120 program -- decode_check check
  beside prefill-check 120 program -- prefill_check check
  beside generate 60 generate_alike
  wait
}

run_figures() {
  step checkpoint 60 checkpoint
  step repeat 120 program -- decode_check repeat --json "$RESULTS/repeat.json"
  local batch rows
  for batch in 1 4 16 64; do
    step "decode-batch-$batch" 60 bench "decode-batch-$batch" --batch "$batch" -p 128 -n 128
  done
  step decode-context-8192 60 bench decode-context-8192 -p 8192 -n 128
  for rows in 512 2048 8192; do
    step "prefill-$rows" 60 bench "prefill-$rows" -p "$rows" -n 1 --reps 5
  done
  step probe-decode 60 program -- decode_check bench quick
  step probe-products 60 program -- prefill_check products
}

# Only what an earlier run left is removed.
prepare_results() {
  if [[ -e $RESULTS && ! -d $RESULTS/.steps && -n $(ls -A -- "$RESULTS") ]] ||
    [[ $PWD/ == "${RESULTS%/}"/* ]]; then
    printf '%s is there and holds no results of run.sh; nothing was removed\n' "$RESULTS" >&2
    exit 2
  fi
  mkdir -p -- "$RESULTS" && find "$RESULTS" -mindepth 1 -delete &&
    mkdir -- "$RESULTS/.steps" || exit 1
}

main() {
  prepare_results
  trap 'stop 130' INT
  trap 'stop 143' TERM
  FUNCTIONS="set -uo pipefail; $(declare -p BUNDLE CHECKS MODEL CACHE RESULTS LIBRARIES)
$(if [[ -n $LIBRARIES ]]; then declare -p BUNDLE_FOLDER; fi)
$(declare -f path_of program find_tool build_check sanitized bench doctor lacks_gpu conformance \
    checkpoint generate_alike transformers)"
  step doctor 60 doctor
  if lacks_gpu; then PARTS=; fi
  [[ -z $PARTS || $PARTS == transformers ]] || build_checks
  local part
  for part in $PARTS; do
    case $part in
      checks) run_checks ;;
      figures) run_figures ;;
      transformers) step transformers 240 transformers ;;
    esac
  done
  python3 bench/cuda/summarise.py "$RESULTS" --seconds "$SECONDS"
}

main
