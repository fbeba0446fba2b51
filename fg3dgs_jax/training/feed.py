"""What each dispatch works on: which steps it holds, their frame numbers, and pictures.

Pictures come along where the clip's do not lie on the devices: they are read from the files one
dispatch ahead.

Frame numbers depend on keys, scores and the step, never on what is learnt. They are picked here
either way, by one program, so that a run is the same to the bit with and without resident pictures.
"""

import concurrent.futures
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config, Stage
from fg3dgs_jax.config.defaults import Draws
from fg3dgs_jax.training import batches, parallel
from fg3dgs_jax.types import REGIONS


class Span(NamedTuple):
    """Steps of a stage that run as one dispatch, and what is decided for all of them."""

    start: int  # step of the stage
    steps: int
    lpips: bool  # LPIPS has begun: `Patches.start`
    controls: bool  # density control follows


def spans(config: Config, stage: Stage, done: int) -> list[Span]:
    """What is left of a stage in dispatches of `config.steps_per_dispatch` steps.

    The one within which LPIPS begins is cut in two there, so that no program has to decide.
    Density control follows where it would without the cut.

    Args:
      config: of the run.
      stage: which stage.
      done: steps of it that were done before.
    """
    whole = {*range(0, stage.steps, config.steps_per_dispatch), stage.steps}
    # The first step whose share of the stage is `start`, but for the rounding of their product.
    late = math.ceil(stage.patches.start * stage.steps - 1e-6) if stage.losses.lpips else 0
    ends = sorted(end for end in whole | {late} if done < end <= stage.steps)
    return [
        Span(start, end - start, start >= late, end in whole)
        for start, end in itertools.pairwise([done, *ends])
    ]


def shared(config: Config, stage: Stage) -> tuple[str, ...]:
    """The regions that get a frame of their own; where all share one it is called the face's."""
    return ("face",) if stage.draws == Draws.FRAME else config.regions


def shows(stage: Stage, region: str) -> str:
    """Which frames a stage may pick for a region: the name of a mask in `DeviceClip.eligible`."""
    return region if stage.window == 1 else "windows"


def make_picker(
    config: Config, stage: Stage, number: int, count: int
) -> Callable[[batches.DeviceClip, jax.Array], dict[str, jax.Array]]:
    """`pick(clip, steps [K]) -> {region: [K, count x window] frame numbers}`; `clip`: a DeviceClip.

    Layers that are fused share their frame, which is called the face's. Where a stage looks at a
    window of consecutive frames, those of one window stand together.
    """

    def pick(clip, step):
        key, _ = batches.step_keys(config.seed, number, step)
        chosen = {}
        for r in shared(config, stage):
            rule = stage.sampling[r] if stage.sampling is not None else None
            key_r = jax.random.fold_in(key, REGIONS.index(r))
            shown, progress = shows(stage, r), step / stage.steps
            first = batches.sample_frames(key_r, step, clip, shown, rule, progress, count)
            chosen[r] = (first[:, None] + jnp.arange(stage.window)).reshape(-1)
        return chosen

    return jax.jit(jax.vmap(pick, (None, 0)))


def feed(
    config: Config,
    stage: Stage,
    number: int,
    clip: processed.Clip,
    on_device: batches.DeviceClip,
    resident: bool,
    done: int,
) -> Iterator[tuple[Span, tuple[dict, dict | None]]]:
    """Yields (span, (frame numbers, pictures or None)) for each dispatch of a stage.

    Arrays are [L, K, B, ...], a part on each local device.

    Args:
      config: of the run.
      stage: which stage.
      number: its place in the order of the stages.
      clip: the processed folder, to read pictures from.
      on_device: the same on the device; pictures in it are not used.
      resident: whether they lie on the devices.
      done: steps of the stage that were done before.

    Raises:
      ValueError: a step takes more frames than some region is seen in.
    """
    count = config.batch * jax.device_count()
    shown = [shows(stage, r) for r in shared(config, stage)]
    seen = {name: int(on_device.eligible[name].sum()) for name in shown}
    fewest = min(seen, key=lambda name: seen[name])
    if count > seen[fewest]:
        raise ValueError(
            f"a step takes {count} frames (batch {config.batch} on {jax.device_count()} devices), "
            f"but only {seen[fewest]} training frames show the {fewest}; lower --config.batch"
        )
    # On a CPU, where it need not wait for the dispatch before.
    host = parallel.host_device()
    rules = jax.device_put(batches.without_pictures(on_device), host)
    picker = make_picker(config, stage, number, count)

    def prepare(span):
        numbers = jax.device_put(jnp.arange(span.start, span.start + span.steps), host)
        index = {r: parallel.ours(x) for r, x in picker(rules, numbers).items()}
        pictures = None
        if not resident:
            pictures = {
                r: batches.read_pictures(clip, i, stage.draws == Draws.FRAME)
                for r, i in index.items()
            }
        return span, parallel.deal((index, pictures))

    left = spans(config, stage, done)
    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(prepare, span) for span in left[:1]]
        for following in [*left[1:], None]:
            ready = coming.pop().result()
            if following is not None:
                coming.append(ahead.submit(prepare, following))
            yield ready
