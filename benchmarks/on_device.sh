#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go: builds the CUDA module, runs its tests, runs them again
# under compute-sanitizer, and measures. Under 8 minutes from a bare machine with nvcc and PyTorch.
#
#     benchmarks/on_device.sh RESULTS_FOLDER
#
# PYTHON names the interpreter that has PyTorch with CUDA (python3). Nothing is downloaded: the packages
# that the build and the tests need (scikit-build-core, pybind11, ninja, pytest, hypothesis, mpmath,
# ml_dtypes) have to be there. Liger and flash-attn are measured where they are installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
results=$(mkdir -p "${1:?usage: on_device.sh RESULTS_FOLDER}" && cd "$1" && pwd) || exit 1
python=${PYTHON:-python3}
site=$PWD/build/on_device/site
failed=()

# step NAME SECONDS COMMAND...: runs a command with a limit, its output in a file of the results.
step() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  if timeout "$limit" "$@" >"$results/$name.txt" 2>&1; then
    echo "$name: done in $((SECONDS - start)) s"
  else
    echo "$name: FAILED (exit $?) after $((SECONDS - start)) s"
    failed+=("$name")
  fi
  tail -n "${TAIL:-3}" "$results/$name.txt"
}

{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
  nvcc --version | tail -n 2
  "$python" -c "import sys, torch; print('Python', sys.version); print('PyTorch', torch.__version__)"
  git log -1 --format='commit %H' 2>/dev/null
  date -u
} >"$results/machine.txt" 2>&1
cat "$results/machine.txt"

rm -rf build/on_device
CMAKE_ARGS="-DGGUFEXT_CUDA=ON ${CMAKE_ARGS:-}" step build 150 \
  "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$site" .
export PYTHONPATH=$site:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}

# --confcutdir: the other folders' fixtures need packages that rotation does not.
tests=("$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/rope)
step tests 120 "${tests[@]}" tests/rope
TAIL=40 step speed 150 "$python" benchmarks/rope_cuda.py
for tool in memcheck racecheck; do
  step "$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 9 --kernel-name kernel_substring=ggufext \
    "${tests[@]}" tests/rope/test_cuda.py
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all steps done"
