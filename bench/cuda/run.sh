#!/ usr / bin / env bash
#Everything that needs a GPU, in one go of some minutes : checks of the kernels alone, whole models
#against the reference, \
    and the figures of Nemotron - 3 - Nano - 30B - A3B at full size(random weights made
#on the device), each with the read rate measured in the same run.
#
#usage : bench / cuda / run.sh[RESULTS] RESULTS : default build / cuda - results
#
#Takes the programs of build / cuda - bundle(tools / bundle_cuda.sh) where that is there, \
    else those of
#build / cuda; and builds the two check programs with nvcc unless build / cuda - checks has them.
set - uo pipefail cd "$(dirname " $ {
  BASH_SOURCE[0]
}
")/../.." || exit RESULTS = ${1 : -build / cuda - results} CHECKS = build / cuda - checks mkdir -
                                                                    p
                                                                    "$RESULTS"
                                                                    "$CHECKS" failed = 0

    program() {
  local name = $1 folder =
      build / cuda / tests / conformance / cuda shift if[[-x build / cuda - bundle / run]];
  then build / cuda - bundle / run
                          "$name"
                          "$@" else if [[$name == logitlab]];
  then folder = build / cuda / apps / logitlab;
  fi "$folder/$name"
     "$@" fi
}

#step NAME SECONDS COMMAND... : its output goes to RESULTS / NAME.txt, \
    its last lines to the terminal.
step() {
  local name=$1 seconds=$2 start=$SECONDS status=0
  shift 2
  timeout "$seconds" "$@" >"$RESULTS/$name.txt" 2>&1 || status=$?
  printf '== %s: exit %d, %d s\n' "$name" "$status" $((SECONDS - start))
  tail -n "${LINES_SHOWN:-3}" "$RESULTS/$name.txt"
  ((status == 0)) || failed=$((failed + 1))
}

build_checks() {
  local flags =
      (-std = c++ 20 - O3 - gencode 'arch=compute_90a,code=sm_90a' - Isrc -
              Ibench / cuda)[[-x $CHECKS / decode_check]] ||
      nvcc "${flags[@]}" -
          x cu bench / cuda / decode_check.cu src / backend / cuda / decode *.cu src / backend /
              cuda / decode *.cc -
          o "$CHECKS/decode_check"[[-x $CHECKS / prefill_check]] ||
      nvcc "${flags[@]}" bench / cuda / prefill_check.cu src / backend / cuda / prefill *.cu - o
          "$CHECKS/prefill_check"
}

export - f program

         main() {
  LINES_SHOWN=20 step doctor 30 bash -c 'program logitlab doctor'
  step build-checks 300 bash -c "$(declare -f build_checks); CHECKS=$CHECKS; build_checks"
  step decode-check 90 "$CHECKS/decode_check" check
  step prefill-check 90 "$CHECKS/prefill_check" check
  LINES_SHOWN=15 step conformance 150 bash -c 'program cuda_conformance --gtest_brief=1'
  CACHE=${CACHE:-/tmp/logitlab-cache}
  step checkpoint 60 python3 tools/make_checkpoint.py "$CACHE" --preset nemotron-3-nano --sparse
  local batch
  for batch in 1 4 16 64;
  do
    bench_json "decode-batch-$batch" --batch "$batch" - p 128 -
        n 128 --profile done bench_json decode - context - 8192 - p 8192 -
        n 128 bench_json prefill - 512 - p 512 - n 1 bench_json prefill - 2048 - p 2048 -
        n 1 printf '\n%d steps failed\n' "$failed"((failed == 0))
}

bench_json() {
  local name = $1 shift
#shellcheck disable = SC2016 #the inner shell expands them
      LINES_SHOWN = 2 step "$name" 120 bash - c ' target = $1;
  shift program logitlab bench-- device cuda : 0 --random - weights-- no -
              trace-- json-- model logitlab / nemotron - 3 - nano "$@" >
          "$target" &&
      head - c 1500 "$target"' \
    bench "$RESULTS/$name.json" --cache-dir "$CACHE" "$@"
}

main
