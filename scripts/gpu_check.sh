#!/usr/bin/env bash
# On a machine with a GPU and jax[cuda13] (or cuda12) installed: builds the library, runs the tests on
# the GPU with the reference backend (there is no CUDA backend yet) and every stage of training at
# 96 px; logs go to $OUT (default: gpu_check/).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${OUT:-gpu_check}
mkdir -p "$out"
failed=0
run() {
  local name=$1
  shift
  echo "== $name"
  timeout 240 "$@" > "$out/$name.log" 2>&1 || { failed=1; echo "$name failed: see $out/$name.log"; }
}
run device nvidia-smi
run backend python -c 'import jax; print(jax.devices()); assert jax.default_backend() == "gpu"'
run build python -m pip install --no-build-isolation -e .
run tests env FG3DGS_BACKEND=reference python -m pytest -q tests/rasterizer/test_reference.py tests/test_hash_encoding.py
run subject python scripts/make_subject.py --out "$out/subject" --speech "$out/speech.wav"
run train env FG3DGS_BACKEND=reference python -m fg3dgs_jax.train \
  --config configs/quickstart.py:tiny --workdir "$out/run" --config.data.path="$out/subject"
exit $failed
