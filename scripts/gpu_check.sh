#!/usr/bin/env bash
# Checks and times the CUDA backend, in two parts that each fit a machine borrowed for minutes:
#
#   bash scripts/gpu_check.sh 1   # <= 270 s: the rasterizer without JAX (parity, times, sanitizer),
#                                 # tests on the device, motion and fusion steps at 512 px
#   bash scripts/gpu_check.sh 2   # <= 240 s: a tiny training beside the CPU's losses, the rasterizer
#                                 # beside its peers, 60 s on a real clip
#
# Nothing is fetched: what scripts/gpu_pack.sh left in .gpu/ is used. What is not there is made here,
# or left out with a line; so is what needs a device where there is none. The summary comes last,
# each figure beside its goal. $OUT (default: gpu_check/) gets at most eight small files. All else is
# in $WORK (default: fg3dgs_gpu in the temporary folder), where part 2 finds what part 1 made.
# Also read: PYTHON, PACK (default: .gpu), and SLOWER, by which all limits of time are multiplied.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in 1) seconds=270 ;; 2) seconds=240 ;; *) echo "expected part 1 or 2" >&2; exit 2 ;; esac
part=$1 slower=${SLOWER:-1} failed=0
deadline=$((seconds * slower))
work=$(realpath -m "${WORK:-${TMPDIR:-/tmp}/fg3dgs_gpu}") out=$(realpath -m "${OUT:-gpu_check}")
logs=$work/logs$part
rm -rf "$logs"
mkdir -p "$out" "$logs" "$work/native"
export work pack python=${PYTHON:-python3}
pack=$(realpath -m "${PACK:-.gpu}")

gpu=0 gvisor=0
nvidia-smi -L > "$logs/device.log" 2>&1 && gpu=1
# gVisor keeps compute-sanitizer from the device.
[ "$(uname -r)" = 4.4.0 ] || grep -qi gvisor /proc/version && gvisor=1
export gpu PATH=$PATH:/usr/local/cuda/bin
export PYTHONPATH=$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export FG3DGS_NATIVE_DIR=$work/native XLA_PYTHON_CLIENT_PREALLOCATE=false
# What one process has compiled and tuned, the next one finds.
export JAX_COMPILATION_CACHE_DIR=$work/compiled
[ "$gpu" = 1 ] || export JAX_PLATFORMS=cpu # a CUDA plugin without a device only takes time
[ -d "$pack/weights" ] && export FG3DGS_WEIGHTS=$pack/weights

tell() { echo "$*" | tee -a "$logs/verdicts"; }
run() { # run NAME SECONDS COMMAND...: one line with its verdict; what it says goes to NAME.log
  local name=$1 limit=$(($2 * slower)) begin=$SECONDS verdict=passed left=$((deadline - SECONDS))
  shift 2
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 5 ]; then
    tell "$name LEFT OUT: the time is up"
    failed=1
    return 1
  fi
  timeout -k 5 "$limit" "$@" > "$logs/$name.log" 2>&1 || { verdict="FAILED ($?)" failed=1; }
  tell "$name $verdict in $((SECONDS - begin)) s: $(tail -n 1 "$logs/$name.log" | cut -c1-120)"
  [ "$verdict" = passed ]
}
on_device() { # as run, with the device; its name comes first
  if [ "$gpu" = 1 ]; then run "$@"; else tell "$1 skipped: no GPU"; fi
}

install() { # what this Python lacks, beside it
  [ -d "$work/site" ] && echo "installed before" && return
  ls "$pack"/wheels/*.whl > /dev/null 2>&1 || { echo "nothing is carried"; return 0; }
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
    --target "$work/site" "$pack"/wheels/*.whl && echo "$(ls "$pack/wheels" | wc -l) wheels"
}
libraries() { # those that are carried, if they load here, or built ones
  cp -n "$pack"/native/*.so "$work/native" 2> /dev/null
  loading && return
  local generator="Unix Makefiles" cuda=OFF
  command -v ninja > /dev/null && generator=Ninja
  [ "$gpu" = 1 ] && cuda=ON
  cmake -G "$generator" -S fg3dgs_jax/native -B "$work/build" -DFG3DGS_CUDA_ARCHS=90 \
    -DFG3DGS_CUDA=$cuda -DPython_EXECUTABLE="$(command -v "$python")" &&
    cmake --build "$work/build" -j "$(nproc)" && cp "$work"/build/*.so "$work/native" && loading
}
loading() {
  "$python" -c "
import sys
from fg3dgs_jax import native
wanted = ['cpu', 'cuda'][: 1 + $gpu]
print('backends that load:', *wanted)
sys.exit(not all(native.has_targets('rasterizer', b) for b in wanted))"
}
clip() { # the embedded subject, 128 px
  [ -f "$work/subject/meta.json" ] && echo "there already" && return
  if [ -f "$pack/subject.tar.gz" ]; then
    tar -xzf "$pack/subject.tar.gz" -C "$work" && echo "unpacked"
  else
    "$python" scripts/make_subject.py --out "$work/subject" --seconds 3 --size 128
  fi
}
export -f install libraries loading clip

tell "part $part: $(head -n 1 "$logs/device.log" | grep GPU || echo no GPU), $(uname -sr)$(
  [ $gvisor = 1 ] && echo " under gVisor"), $(nproc) cores"
run install 60 bash -c install
run versions 60 "$python" -c "
import jax
print('jax', jax.__version__, *{d.device_kind for d in jax.devices()})
assert $gpu == (jax.default_backend() == 'gpu'), jax.default_backend()"
run libraries 120 bash -c libraries
run clip 60 bash -c clip

first() {
  if [ -x "$pack/driver" ]; then
    on_device parity 20 "$pack/driver" "$pack"/references/*
    on_device sort 10 "$pack/driver" --sort 50000
    for batch in 1 8; do
      on_device "times_$batch" 20 "$pack/driver" --time 50000 512 3 $batch
    done
    for tool in memcheck racecheck synccheck initcheck; do
      if [ $gvisor = 1 ]; then
        tell "$tool skipped: gVisor keeps it from the device"
      else
        on_device $tool 12 compute-sanitizer --tool $tool --error-exitcode 9 \
          "$pack/driver" "$pack"/references/*
      fi
    done
  else
    tell "driver skipped: $pack/driver is missing; scripts/gpu_pack.sh makes it"
  fi
  # As test_the_kernels_run_on_the_host chooses them: each gradient of the reference is compiled.
  local chosen="test_cuda and gpu or equals_the_definition and 2000 or opaque or unsound"
  chosen+=" or exactly_one or picture_and_gradients and not 450 or channel_counts and (1 or 32)"
  chosen+=" or bit_for_bit"
  run tests 90 "$python" -m pytest -q -p no:cacheprovider tests/rasterizer/test_cuda.py \
    tests/rasterizer/test_parity.py tests/models/test_hash_encoding_ffi.py -k "$chosen"
  local bench=(scripts/bench_step.py --data "$work/subject" --cases fusion motion)
  if [ "$gpu" = 1 ]; then
    bench+=(--config configs/obama.py:audio=mel --side 512)
  else # to see that it runs
    bench+=(--config configs/quickstart.py:tiny --steps 2 --repeats 1)
  fi
  run step 110 "$python" "${bench[@]}" --out "$work/bench_step.json"
  XLA_FLAGS=--xla_gpu_command_buffer_scheduling_mode=CONCURRENT on_device step_concurrent 110 \
    "$python" "${bench[@]}" --out "$work/bench_step_concurrent.json"
  # gsplat compiles its kernels when it is first imported: until part 2, if it is carried.
  if [ "$gpu" = 1 ] && [ -d "$work/site/gsplat" ]; then
    TORCH_CUDA_ARCH_LIST=9.0 setsid "$python" -c "import gsplat.cuda._backend" > /dev/null 2>&1 &
  fi
}

second() {
  local flags=(--config.data.path="$work/subject" --config.steps_per_dispatch=10)
  flags+=(--config.log.every=10)
  # Untuned: its programs run for seconds.
  XLA_FLAGS=$([ "$gpu" = 1 ] && echo --xla_gpu_autotune_level=0) run train 120 \
    "$python" -m fg3dgs_jax.train --config configs/quickstart.py:tiny --workdir "$work/run" \
    "${flags[@]}"
  local bench=(scripts/bench_rasterizer.py --budget 0.5 --footprints small head)
  if [ "$gpu" = 1 ]; then bench+=(--cases 50000x512); else bench+=(--cases 200x64 --peers); fi
  run rasterizer 90 "$python" "${bench[@]}" --out "$work/bench_rasterizer.json"
  if [ -f "$pack/clip/meta.json" ]; then
    # The clock ends it as planned (124). What counts is how far it comes.
    on_device real_clip 80 bash -c 'timeout -s INT 60 "$@" || [ $? = 124 ]' _ \
      "$python" -m fg3dgs_jax.train --config configs/obama.py --workdir "$work/real" \
      --config.data.path="$pack/clip"
  else
    tell "real_clip skipped: $pack/clip is missing; CLIP=FOLDER scripts/gpu_pack.sh takes one"
  fi
}

if [ "$part" = 1 ]; then first; else second; fi
"$python" scripts/gpu_summary.py "$part" "$work" "$pack" "$out" || failed=1
exit $failed
