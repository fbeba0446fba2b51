"""A clip on the device and the frames taken from it; all randomness from `fold_in(key, step)`.

So step s of a run sees the same frame whether or not the run was interrupted before.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.data import dataset
from fg3dgs_jax.types import REGIONS, Array, Batch, Camera, Conditions

MIN_PIXELS = 20 / 512**2  # a layer is not trained on frames that show less of its region (share)


class DeviceClip(NamedTuple):
    """Every frame of a clip as arrays; images stay uint8 until they are used."""

    frames: Array  # uint8 [T, H, W, 3]
    labels: Array  # uint8 [T, H, W]
    backgrounds: Array  # uint8 [T, H, W, 3]
    world_to_camera: Array  # [T, 4, 4]
    intrinsics: Array  # [4] fx, fy, cx, cy px
    audio: Array  # [T, A, D]
    expression: Array  # [T, E]
    lips_boxes: Array  # int32 [T, 4]
    eyes_boxes: Array  # int32 [T, 2, 4]
    scores: dict[str, Array]  # "opening", "blink": [T] in [0, 1]
    eligible: dict[str, Array]  # region -> bool [T]: train frames that show the region


def device_clip(clip: dataset.Clip, extractor: str, expression_names) -> DeviceClip:
    """Uploads a clip; frames outside the train split are never eligible."""
    train = np.isin(np.arange(clip.num_frames), clip.split("train"))
    labels = np.asarray(clip.labels)
    pixels = MIN_PIXELS * clip.height * clip.width
    seen = {
        "face": train & clip.valid,
        "eyes": train & (np.isin(labels, dataset.EYE_LABELS).sum((1, 2)) >= pixels),
        "mouth": train & (np.isin(labels, dataset.MOUTH_LABELS).sum((1, 2)) >= pixels),
    }
    eligible = {r: seen[r] if seen[r].any() else train for r in REGIONS}
    blink = clip.expression_channels(["AU45"])[:, 0]
    return DeviceClip(
        frames=jnp.asarray(clip.frames),
        labels=jnp.asarray(labels),
        backgrounds=jnp.asarray(clip.backgrounds()),
        world_to_camera=jnp.asarray(clip.world_to_camera),
        intrinsics=jnp.asarray(clip.intrinsics, jnp.float32),
        audio=jnp.asarray(clip.audio_features(extractor)),
        expression=jnp.asarray(clip.expression_channels(expression_names)),
        lips_boxes=jnp.asarray(clip.lips_boxes()),
        eyes_boxes=jnp.asarray(clip.eyes_boxes()),
        scores={
            "opening": jnp.asarray(_score(clip.mouth_openings(), train, 95)),
            "blink": jnp.asarray(_score(blink, train, 99)),
        },
        eligible={r: jnp.asarray(eligible[r]) for r in REGIONS},
    )


def _score(values, train, percentile):
    """[T] scaled so that the train split's minimum is 0 and its upper percentile 1, clipped."""
    low, high = values[train].min(), np.percentile(values[train], percentile)
    return np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)


def sample_frames(key, step, clip: DeviceClip, region: str, rule, progress, count: int):
    """Frame numbers [count] for one step.

    Args:
      key: consumed.
      rule: None (every eligible frame alike) or a row of `stages.*.frames`: score, every, low,
        high. On every `every`-th step only frames whose score lies in the window are taken; where
        there is none, the nearest.
      progress: share of the stage done, in [0, 1].
    """
    far = jnp.where(clip.eligible[region], 0.0, 1e6)
    if rule is not None:
        low, high = (a + progress * (b - a) for a, b in (rule.low, rule.high))
        score = clip.scores[rule.score]
        outside = jnp.maximum(low - score, 0.0) + jnp.maximum(score - high, 0.0)
        far = far + jnp.where(step % rule.every == 0, 1e3 * outside, 0.0)
    # Gumbel noise picks uniformly among frames at distance 0, else the nearest.
    return jax.lax.top_k(jax.random.gumbel(key, far.shape) * 1e-3 - far, count)[1]


def take(clip: DeviceClip, index) -> Batch:
    """Frame `index` [] of the clip as a Batch without batch dimension."""
    total = clip.audio.shape[0]
    rows = index + jnp.arange(-4, 4)
    windows = clip.audio[jnp.clip(rows, 0, total - 1)]
    windows = jnp.where(((rows >= 0) & (rows < total))[:, None, None], windows, 0.0)
    return Batch(
        index=index,
        conditions=Conditions(windows, clip.expression[index]),
        camera=Camera(clip.world_to_camera[index], *clip.intrinsics),
        image=clip.frames[index].astype(jnp.float32) / 255.0,
        labels=clip.labels[index],
        background=clip.backgrounds[index].astype(jnp.float32) / 255.0,
        lips_box=clip.lips_boxes[index],
        eyes_box=clip.eyes_boxes[index],
    )
