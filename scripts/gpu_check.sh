#!/usr/bin/env bash
# On a machine with a GPU, nvcc and jax[cuda13] (or cuda12): builds the libraries for this GPU, runs the
# tests of the CUDA backend, compute-sanitizer, XLA's command buffers on and off, both benchmarks, and
# 200 steps through every stage of training at 96 px. Needs no network and installs nothing. Logs and
# figures go to $OUT (default: gpu_check/), and summary.txt there says what passed. Under 9 minutes.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${OUT:-gpu_check}
python=${PYTHON:-python3}
build=${BUILD:-$(mktemp -d)}
dump=$(mktemp -d)
mkdir -p "$out"
: > "$out/summary.txt"
failed=0
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export FG3DGS_NATIVE_DIR=$build FG3DGS_BACKEND=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false

deadline=$((SECONDS + 530))
run() { # run NAME SECONDS COMMAND...
  local name=$1 limit=$2 begin=$SECONDS verdict=passed
  shift 2
  [ $((deadline - SECONDS)) -lt "$limit" ] && limit=$((deadline - SECONDS))
  [ "$limit" -lt 1 ] && limit=1
  timeout "$limit" "$@" > "$out/$name.log" 2>&1 || { failed=1 verdict="FAILED ($?)"; }
  echo "$name $verdict in $((SECONDS - begin)) s: $(tail -n 1 "$out/$name.log" | cut -c1-160)" |
    tee -a "$out/summary.txt"
}
configure() {
  cmake -S fg3dgs_jax/native -B "$build" -DPython_EXECUTABLE="$(command -v "$python")" \
    -DFG3DGS_CUDA=ON -DFG3DGS_CUDA_ARCHS=native && cmake --build "$build" -j "$(nproc)"
}
export -f configure
export build python

run device 20 nvidia-smi
run backend 60 "$python" -c \
  'import jax; print(jax.__version__, jax.devices()); assert jax.default_backend() == "gpu"'
run build 120 bash -c configure
run kernels 100 "$python" -m pytest -q -m gpu tests/rasterizer/test_cuda.py
run parity 120 "$python" -m pytest -q tests/rasterizer/test_parity.py tests/rasterizer/test_program.py \
  tests/models/test_hash_encoding_ffi.py

# The same steps with and without CUDA graphs; the dump names the thunks, so it shows what was captured.
scan=(tests/rasterizer/test_cuda.py -k "scan or batch_equals")
XLA_FLAGS="--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUSTOM_CALL --xla_gpu_graph_min_graph_size=1 \
  --xla_dump_to=$dump" run graphs 60 "$python" -m pytest -q "${scan[@]}"
XLA_FLAGS="--xla_gpu_enable_command_buffer=" run no_graphs 60 "$python" -m pytest -q "${scan[@]}"
grep -rhoiE 'command_?buffer[a-z_]*' "$dump" 2> /dev/null | sort | uniq -c | sort -rn |
  head -n 20 > "$out/captured.txt"

# Allocations of their own, so that an access past the end of one is seen.
digest='from tests.rasterizer.test_cuda import digest; print(digest())'
for tool in memcheck racecheck initcheck; do
  XLA_PYTHON_CLIENT_ALLOCATOR=platform XLA_FLAGS="--xla_gpu_enable_command_buffer=" run "$tool" 80 \
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -c "$digest"
done

run bench_rasterizer 110 "$python" scripts/bench_rasterizer.py --backend cuda --budget 1 \
  --cases 20000x256 50000x512 --out "$out/bench_rasterizer.json"
run bench_step 90 "$python" scripts/bench_step.py --out "$out/bench_step.json"
run subject 30 "$python" scripts/make_subject.py --out "$out/subject" --speech "$out/speech.wav"
run train 150 "$python" -m fg3dgs_jax.train --config configs/quickstart.py:tiny \
  --workdir "$out/run" --config.data.path="$out/subject" --config.steps_per_dispatch=50 \
  --config.stages.static.steps=50 --config.stages.motion.steps=100 --config.stages.fusion.steps=50
exit $failed
