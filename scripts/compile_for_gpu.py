"""Compiles the train step of each stage for an H200, on a machine without a GPU, and counts.

    bash scripts/test.sh aot                     # once: fetches JAX's CUDA plugin, runs the tests
    PYTHONPATH=.venv/test_cuda python scripts/compile_for_gpu.py --out compiled.json

XLA compiles for a chip that it is only told about. So any machine shows what a GPU would be given:
the kernels, copies and custom calls of a step, which of them stand in CUDA graphs ("command
buffers"), what makes the host wait, and the memory. Nothing is run, and nothing is timed: where XLA
would time alternatives on the chip, it takes its first guess.

No data is read. A clip of `--side` px stands in as shapes, LPIPS and the lip-sync expert have
random weights. What one of our custom calls launches by itself is not counted, only the call. The
motion stage has two cases, because LPIPS takes part in the last of its steps only.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import types
from unittest import mock

# Before JAX starts: the host is a CPU, and the plugin need not find CUDA's own libraries.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["FG3DGS_BACKEND"] = "cuda"

import jax
import jax.numpy as jnp
import numpy as np
from bench_step import parts_by_operation
from jax.experimental import topologies

from fg3dgs_jax import config as config_lib
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.experts.image import lpips
from fg3dgs_jax.lipsync import alignment, expert
from fg3dgs_jax.training import batches, feed, loop, objective, parallel, step
from fg3dgs_jax.types import REGIONS, Conditions, Gaussians

# What XLA would ask the driver. Processors, clock, memory and its bandwidth are those of NVIDIA's
# data sheet, limits those of compute capability 9.0 in the CUDA programming guide. The versions
# matter: XLA keeps out of a graph what it believes the driver too old for.
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 150000000000
  memory_bandwidth: 4800000000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
}
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 12 }
"""
AUDIO_WINDOW = (2, 384)  # of the Whisper features
FRAMES = 8000  # of the clip, 5 min 20 s
KNOWN = 64  # frames of it that the lip-sync expert knows
CASES = {  # name: the stage, and whether LPIPS takes part if the stage has it
    "static": ("static", True),
    "motion": ("motion", False),
    "motion_lpips": ("motion", True),
    "fusion": ("fusion", True),
    "alignment": ("alignment", True),
}

# Thunks, XLA's word for what it launches one after the other, by what a graph makes of them.
KERNELS = ("kCustomKernel", "kKernel", "kGemm", "kCublasLtMatmul", "kConvolution", "kCuDnn")
COPIES = ("kCopy", "kMemset32BitValue", "kMemzero", "kDeviceToDeviceCopy")
CALLS = ("kCustomCall",)
WAITS = ("kWhile", "kConditional")  # outside of a graph, the host reads what decides them
FRAMES_OF_OTHERS = ("kSequential", "kDynamicSliceFusion", "kAsyncStart", "kAsyncDone")


def parse(argv):
    """Flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/obama.py", help="FILE[:VARIANT]")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--side", type=int, default=512, help="of the pictures, px")
    slots = {"face": 32768, "eyes": 4096, "mouth": 8192}
    parser.add_argument("--slots", type=json.loads, default=slots, help="JSON {region: Gaussians}")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    return parser.parse_args(argv)


def chip():
    """The devices that are compiled for: one H200."""
    # XLA takes the description as text, and asks how many chips there are.
    described = topologies.get_topology_desc("", "cuda", target_config=H200, topology="1x1x1")
    return described.devices


def shape(*sizes, dtype=jnp.float32):
    """An array that has no values."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def clip_shapes(config, side):
    """A DeviceClip with its pictures."""
    channels, points = len(config.data.expression), len(landmarks.GUIDES)
    return batches.DeviceClip(
        frames=shape(FRAMES, side, side, 3, dtype=jnp.uint8),
        labels=shape(FRAMES, side, side, dtype=jnp.uint8),
        torso=shape(FRAMES, side, side, 4, dtype=jnp.uint8),
        plate=shape(side, side, 3, dtype=jnp.uint8),
        world_to_camera=shape(FRAMES, 4, 4),
        intrinsics=shape(4),
        audio=shape(FRAMES, *AUDIO_WINDOW),
        audio_scale=shape(AUDIO_WINDOW[-1]),
        expression=shape(FRAMES, channels),
        expression_scale=shape(channels),
        lips_boxes=shape(FRAMES, 4, dtype=jnp.int32),
        eyes_boxes=shape(FRAMES, 2, 4, dtype=jnp.int32),
        guides=shape(points, 3),
        guide_pixels=shape(FRAMES, points, 2),
        scores={name: shape(FRAMES) for name in ("opening", "blink")},
        eligible={name: shape(FRAMES, dtype=jnp.bool_) for name in (*REGIONS, "windows")},
    )


def state_shapes(config, nets, slots):
    """A TrainState with `slots` {region: Gaussians}."""
    bases = (config.sh_degree + 1) ** 2
    conditions = Conditions(jnp.zeros((8, *AUDIO_WINDOW)), jnp.zeros(len(config.data.expression)))
    regions, alive = {}, {}
    for r in config.regions:
        n = slots[r]
        gaussians = Gaussians(shape(n, 3), shape(n, 4), shape(n, 3), shape(n), shape(n, bases, 3))
        motion = jax.eval_shape(nets[r].init, jax.random.key(0), gaussians.means, conditions)
        regions[r], alive[r] = draw.Region(gaussians, motion), shape(n, dtype=jnp.bool_)
    return jax.eval_shape(step.init_state, regions, alive)


def networks():
    """LPIPS and the lip-sync expert, with random weights."""
    rng = np.random.default_rng(0)

    def drawn(init, *arguments):
        shapes = jax.eval_shape(init, jax.random.key(0), *arguments)
        return jax.tree.map(lambda x: rng.uniform(0.0, 0.1, x.shape).astype(np.float32), shapes)

    taps = lpips.AlexNetTaps()
    trunk = drawn(taps.init, shape(1, 64, 64, 3))["params"]
    heads = [np.ones(len(trunk[f"Conv_{i}"]["bias"]), np.float32) for i in range(len(trunk))]
    judge = drawn(expert.init, shape(80), shape(80))
    clip = types.SimpleNamespace(landmarks=rng.uniform(0, 512, (KNOWN, 478, 2)), num_frames=KNOWN)
    sync = alignment.own_loss(judge, clip, np.zeros(640 * KNOWN, np.int16))
    return objective.Networks(
        lambda x, y: lpips.lpips({"trunk": trunk, "heads": heads}, x, y), sync
    )


def lower(config, case, flags, known, devices):
    """A dispatch of a case, lowered for `devices`; `known`: of `networks`."""
    name, with_lpips = CASES[case]
    stages = dict(loop.stages_in_order(config))
    number, stage = list(stages).index(name), stages[name]
    nets = draw.make_nets(config)
    size = (flags.side, flags.side)
    setup = objective.Setup(config, stage, number, nets, known, size, lpips=with_lpips)
    steps = config.steps_per_dispatch
    index = {r: shape(steps, setup.frames, dtype=jnp.int32) for r in feed.shared(config, stage)}
    arguments = (
        state_shapes(config, nets, flags.slots),
        clip_shapes(config, flags.side),
        (index, None),
    )
    arguments = jax.tree.map(lambda x: shape(1, *x.shape, dtype=x.dtype), arguments)

    def pmap(function, **options):
        return jax.pmap(function, axis_name=parallel.AXIS, devices=devices, **options)

    on_chip = mock.patch.object(parallel, "pmap", pmap)
    as_on_gpu = mock.patch.object(jax, "default_backend", lambda: "gpu")
    with on_chip, as_on_gpu:
        return step.make_dispatch(setup).lower(*arguments)


def compile_(lowered):
    """(compiled program, XLA's list of its thunks, {thunk's number: its operation})."""
    with tempfile.TemporaryDirectory() as folder:
        program = lowered.compile(compiler_options={"xla_dump_to": folder})
        (listed,) = pathlib.Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt")
        (told,) = pathlib.Path(folder).glob("*.thunk_metadata.txt")
        names = re.findall(r'profile_annotation: "([^"]*)"\s*thunk_id: (\d+)', told.read_text())
        return program, listed.read_text(), {int(number): name for name, number in names}


def tree(listed):
    """XLA's indented list of thunks as [(kinds of all that it stands in, kind, number)].

    A loop's "condition:" and "body:" stand as kinds of their own between the loop and its thunks.
    """
    found, above = [], []  # above: (indentation, kind)
    for line in listed.splitlines():
        thunk = re.match(r"( *)(\d+): (k\w+)", line)
        label = re.match(r" *(\w+):\s*$", line)
        if thunk:
            indent = len(thunk[1])
            while above and above[-1][0] >= indent:
                above.pop()
            found.append((tuple(kind for _, kind in above), thunk[3], int(thunk[2])))
            above.append((indent, thunk[3]))
        elif label:
            # XLA indents the two labels of a loop differently, but what is in them alike.
            while above and above[-1][1] not in WAITS:
                above.pop()
            above.append((above[-1][0] + 1 if above else 0, label[1]))
    return found


def step_of(thunks):
    """The thunks of one step, seen from the body of the loop over steps, which holds most."""
    bodies = collections.defaultdict(list)
    loop_number = None
    for above, kind, number in thunks:
        if not above:
            loop_number = number
        elif above[:2] == ("kWhile", "body"):
            bodies[loop_number].append((above[2:], kind, number))
    return max(bodies.values(), key=len)


def count(thunks):
    """What the thunks come to, outside and inside of graphs."""
    leaves = [t for t in thunks if t[1] not in (*FRAMES_OF_OTHERS, *WAITS, "kCommandBuffer")]
    outside = collections.Counter(
        kind for above, kind, _ in leaves if "kCommandBuffer" not in above
    )
    kinds = collections.Counter(kind for _, kind, _ in leaves)
    return {
        "graphs": sum(kind == "kCommandBuffer" for _, kind, _ in thunks),
        "kernels": sum(kinds[k] for k in KERNELS),
        "copies": sum(kinds[k] for k in COPIES),
        "calls": sum(kinds[k] for k in CALLS),
        "others": {k: n for k, n in kinds.items() if k not in (*KERNELS, *COPIES, *CALLS)},
        "outside": dict(outside),
        "waits": sum(kind in WAITS and "kCommandBuffer" not in above for above, kind, _ in thunks),
    }


def by_part(program, thunks, operations):
    """{part of the step: its kernels and copies}, by the code that an operation came from."""
    parts = parts_by_operation(program.as_text())
    counted = [number for _, kind, number in thunks if kind in (*KERNELS, *COPIES)]
    found = collections.Counter(parts.get(operations.get(n, ""), "other") for n in counted)
    return dict(found.most_common())


def compiled(config, case, flags, known, devices):
    """All that is counted of a case."""
    begin = time.process_time()
    lowered = lower(config, case, flags, known, devices)
    traced = time.process_time()
    program, listed, operations = compile_(lowered)
    thunks = tree(listed)
    one = step_of(thunks)
    memory = program.memory_analysis()
    return {
        "step": count(one),
        "dispatch": count(thunks),
        "parts": by_part(program, one, operations),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "trace_cpu_s": round(traced - begin, 1),
        "compile_cpu_s": round(time.process_time() - traced, 1),
    }


def show(case, found):
    """One line a case, and one with its parts."""
    one = found["step"]
    outside = ", ".join(f"{n} {kind}" for kind, n in one["outside"].items()) or "nothing"
    print(
        f"{case}: a step is {one['kernels']} kernels, {one['copies']} copies, {one['calls']} calls "
        f"in {one['graphs']} graphs; outside of them {outside}; {one['waits']} waits for the host; "
        f"{found['temporary_bytes'] / 1e6:.0f} MB temporary"
    )
    print("  " + ", ".join(f"{part} {n}" for part, n in found["parts"].items()), flush=True)


def main(argv=None) -> int:
    """Runs the program; 0 on success, 1 with one line on bad input."""
    flags = parse(argv)
    try:
        config, devices, known = config_lib.load(flags.config), chip(), networks()
        results = {}
        for case in flags.cases:
            results[case] = compiled(config, case, flags, known, devices)
            show(case, results[case])
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"compile_for_gpu: {error}", file=sys.stderr)
        return 1
    if flags.out:
        flags.out.write_text(json.dumps({"jax": jax.__version__, "cases": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
