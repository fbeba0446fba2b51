"""What each dispatch works on: the frame numbers of its steps and, where the clip's pictures do not
lie on the devices, the pictures themselves, read from the files one dispatch ahead.

Frame numbers depend on keys, scores and the step, never on what is learnt. They are picked here
either way, by one program, so that a run is the same to the bit with and without resident pictures.
"""

import concurrent.futures

import jax
import jax.numpy as jnp

from fg3dgs_jax.training import batches, parallel
from fg3dgs_jax.types import REGIONS


def shows(stage, region):
    """Which frames a stage may pick for a region: the name of a mask in `DeviceClip.eligible`."""
    return region if stage.window == 1 else "windows"


def make_picker(config, stage, stage_number, count: int):
    """`pick(clip, steps [K]) -> {region: [K, count x window] frame numbers}`; `clip`: a DeviceClip.

    Layers that are fused share their frame, which is called the face's. Where a stage looks at a
    window of consecutive frames, those of one window stand together.
    """

    def pick(clip, step):
        key, _ = batches.step_keys(config.seed, stage_number, step)
        chosen = {}
        for r in ("face",) if stage.fused else config.layers:
            rule = stage.frames[r] if stage.frames is not None else None
            first = batches.sample_frames(
                jax.random.fold_in(key, REGIONS.index(r)), step, clip, shows(stage, r), rule,
                step / stage.steps, count,
            )  # fmt: skip
            chosen[r] = (first[:, None] + jnp.arange(stage.window)).reshape(-1)
        return chosen

    return jax.jit(jax.vmap(pick, (None, 0)))


def feed(config, stage, stage_number, clip, on_device, resident: bool, done: int):
    """Yields (steps, (frame numbers, pictures or None)) for each dispatch of a stage after `done`
    of its steps; arrays are [L, K, B, ...], a part on each local device.

    Args:
      on_device: the DeviceClip; pictures in it are not used.

    Raises:
      ValueError: a step takes more frames than some region is seen in.
    """
    count = config.batch * jax.device_count()
    shown = [shows(stage, r) for r in (("face",) if stage.fused else config.layers)]
    seen = {name: int(on_device.eligible[name].sum()) for name in shown}
    fewest = min(seen, key=seen.get)
    if count > seen[fewest]:
        raise ValueError(
            f"a step takes {count} frames (batch {config.batch} on {jax.device_count()} devices), "
            f"but only {seen[fewest]} training frames show the {fewest}; lower --config.batch"
        )
    # On a CPU, where it need not wait for the dispatch before.
    host = parallel.host_device()
    rules = jax.device_put(batches.without_pictures(on_device), host)
    picker = make_picker(config, stage, stage_number, count)

    def prepare(start):
        steps = min(config.steps_per_dispatch, stage.steps - start)
        numbers = jax.device_put(jnp.arange(start, start + steps), host)
        index = {r: parallel.ours(x) for r, x in picker(rules, numbers).items()}
        pictures = None
        if not resident:
            pictures = {r: batches.read_pictures(clip, i, stage.fused) for r, i in index.items()}
        return steps, parallel.deal((index, pictures))

    starts = range(done, stage.steps, config.steps_per_dispatch)
    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(prepare, start) for start in starts[:1]]
        for following in [*starts[1:], None]:
            ready = coming.pop().result()
            if following is not None:
                coming.append(ahead.submit(prepare, following))
            yield ready
