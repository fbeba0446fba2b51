#!/usr/bin/env bash
# Makes .gpu/, all that scripts/gpu_check.sh needs on a machine with a GPU and without a package
# index: wheels that such a machine lacks, the libraries and the rasterizer's driver for its chip,
# files of known results, the embedded subject with the CPU's losses on it, and the weights of LPIPS
# if they are found. Needs nvcc, and a Python with this package's requirements.
#
#   bash scripts/gpu_pack.sh                                  # beside the checkout's other files
#   CLIP=data/obama PEERS=gsplat==1.5.3 bash scripts/gpu_pack.sh
#
# CLIP: a processed folder to train on for a minute; with PyAV's wheel if its pictures are streams.
# PEERS: other rasterizers to be timed, as pip names them. ARCH: of the chip (default: 90, an H200).
# WHEELS_PYTHON: the other machine's (default: 3.12). MOST: MiB that may be carried (default: 60).
# FG3DGS_NATIVE_DIR: libraries built already. Bring the whole folder along, and run from the root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3} pack=$(realpath -m "${PACK:-.gpu}") arch=${ARCH:-90}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$pack"/{wheels,native,weights}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} JAX_PLATFORMS=cpu

# Not in an environment that has JAX, Flax, Optax, Orbax, OpenCV (headless), SciPy and pytest.
wanted=(ml-collections clu tensorboardX platformdirs beartype)
read -ra peers <<< "${PEERS:-}"
if [ -n "${CLIP:-}" ]; then
  rm -rf "$pack/clip"
  cp -r "$CLIP" "$pack/clip"
  compgen -G "$CLIP/*.mkv" > /dev/null && wanted+=(av)
fi
rm -f "$pack"/wheels/*
platforms=()
for name in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${name}_x86_64"); done
"$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
  --python-version "${WHEELS_PYTHON:-3.12}" "${platforms[@]}" --platform manylinux2014_x86_64 \
  -d "$pack/wheels" "${wanted[@]}" "${peers[@]}"

built=${FG3DGS_NATIVE_DIR:-}
if [ -z "$built" ]; then
  built=$scratch/build
  cmake -S fg3dgs_jax/native -B "$built" -DFG3DGS_CUDA=ON -DFG3DGS_CUDA_ARCHS="$arch" \
    -DPython_EXECUTABLE="$(command -v "$python")" > "$scratch/log"
  cmake --build "$built" -j "$(nproc)" >> "$scratch/log" || { tail "$scratch/log" >&2; exit 1; }
fi
cp "$built"/libfg3dgs_{cpu,cuda}.so "$pack/native"
export FG3DGS_NATIVE_DIR=$pack/native
if [ -f tests/host_cuda/driver.cu ]; then
  nvcc -O3 --fmad=false -std=c++17 "-arch=sm_$arch" -I fg3dgs_jax/native \
    tests/host_cuda/driver.cu fg3dgs_jax/native/cuda/*.cu -o "$pack/driver"
  "$python" -m tests.host_cuda.references "$pack/references"
else
  echo "no driver of the rasterizer: tests/host_cuda/driver.cu is missing"
fi

"$python" scripts/make_subject.py --out "$scratch/subject" --seconds 6 --size 128
tar -czf "$pack/subject.tar.gz" -C "$scratch" subject
# As part 2 of gpu_check.sh trains.
"$python" -m fg3dgs_jax.train --config configs/quickstart.py:tiny --workdir "$scratch/run" \
  --config.data.path="$scratch/subject" --config.steps_per_dispatch=10 --config.log.every=10 \
  > "$scratch/log" 2>&1 || { tail "$scratch/log" >&2; exit 1; }
cp "$scratch/run/metrics.jsonl" "$pack/cpu_metrics.jsonl"
lpips=$("$python" -c "from fg3dgs_jax.weights import store; print(store.find('lpips_alex') or '')")
if [ -n "$lpips" ]; then cp "$lpips" "$pack/weights"; else echo "no weights of LPIPS"; fi

mib=$(du -sm --apparent-size "$pack" | cut -f1)
du -sh --apparent-size "$pack"/* | sort -rh
if [ "$mib" -gt "${MOST:-60}" ]; then
  echo "$pack holds $mib MiB; at most ${MOST:-60} may be carried: leave out CLIP or PEERS" >&2
  exit 1
fi
echo "$pack holds $mib MiB. There: bash scripts/gpu_check.sh 1, and then 2"
