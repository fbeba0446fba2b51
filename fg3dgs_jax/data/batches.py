"""A clip on the device and the frames taken from it; all randomness from `fold_in(key, step)`.

So step s of a run sees the same frame whether or not the run was interrupted before.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import geometry
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
    audio_scale: Array  # [D], standard deviations over the train split
    expression: Array  # [T, E]
    lips_boxes: Array  # int32 [T, 4]
    eyes_boxes: Array  # int32 [T, 2, 4]
    guides: Array  # [P, 3] metres
    guide_pixels: Array  # [T, P, 2]
    scores: dict[str, Array]  # "opening", "blink": [T] in [0, 1]
    eligible: dict[str, Array]  # region -> bool [T]: train frames that show the region


def device_clip(clip: dataset.Clip, extractor: str, expression_names, classes=None) -> DeviceClip:
    """Uploads a clip; frames outside the train split are never eligible.

    `classes`: {region: label classes} that say which frames show a region, by default eyes and
    inside of the mouth.
    """
    classes = {"eyes": dataset.EYE_LABELS, "mouth": dataset.MOUTH_LABELS} | (classes or {})
    train = np.isin(np.arange(clip.num_frames), clip.split("train"))
    labels = np.asarray(clip.labels)
    pixels = MIN_PIXELS * clip.height * clip.width
    seen = {"face": train & clip.valid} | {
        r: train & (np.isin(labels, classes[r]).sum((1, 2)) >= pixels) for r in ("eyes", "mouth")
    }
    eligible = {r: seen[r] if seen[r].any() else train for r in REGIONS}
    guide_pixels = jnp.asarray(clip.landmarks[:, dataset.GUIDES])
    intrinsics = jnp.asarray(clip.intrinsics, jnp.float32)
    seen_by = np.flatnonzero(train & clip.valid & clip.landmarks_valid)
    cameras = Camera(
        jnp.asarray(clip.world_to_camera[seen_by]),
        *jnp.broadcast_to(intrinsics[:, None], (4, len(seen_by))),
    )
    blink = clip.expression_channels(["AU45"])[:, 0]
    audio = jnp.asarray(clip.audio_features(extractor))
    return DeviceClip(
        frames=jnp.asarray(clip.frames),
        labels=jnp.asarray(labels),
        backgrounds=jnp.asarray(clip.backgrounds()),
        world_to_camera=jnp.asarray(clip.world_to_camera),
        intrinsics=intrinsics,
        audio=audio,
        audio_scale=audio[train].std((0, 1)),
        expression=jnp.asarray(clip.expression_channels(expression_names)),
        lips_boxes=jnp.asarray(clip.lips_boxes()),
        eyes_boxes=jnp.asarray(clip.eyes_boxes()),
        guides=geometry.triangulate(guide_pixels[seen_by], cameras),
        guide_pixels=guide_pixels,
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


def guide_frames(key, step, clip: DeviceClip, count: int, noise) -> Batch:
    """A Batch of [count] random train frames, to take landmarks from; for `noise` see `take`."""
    key_frames, key_noise = jax.random.split(key)
    index = sample_frames(key_frames, step, clip, "face", None, 0.0, count)
    keys = jax.random.split(key_noise, count)
    return jax.vmap(lambda i, k: take(clip, i, k, noise))(index, keys)


def take(clip: DeviceClip, index, key=None, noise=0.0) -> Batch:
    """Frame `index` [] of the clip as a Batch without batch dimension.

    With `noise` the audio features get so many standard deviations of white noise (key: consumed):
    a short clip's sounds could otherwise be learnt by heart.
    """
    total = clip.audio.shape[0]
    rows = index + jnp.arange(-4, 4)
    windows = clip.audio[jnp.clip(rows, 0, total - 1)]
    windows = jnp.where(((rows >= 0) & (rows < total))[:, None, None], windows, 0.0)
    if noise:
        size = noise * clip.audio_scale
        windows = windows + size * jax.random.normal(key, windows.shape)
    return Batch(
        index=index,
        conditions=Conditions(windows, clip.expression[index]),
        camera=Camera(clip.world_to_camera[index], *clip.intrinsics),
        image=clip.frames[index].astype(jnp.float32) / 255.0,
        labels=clip.labels[index],
        background=clip.backgrounds[index].astype(jnp.float32) / 255.0,
        lips_box=clip.lips_boxes[index],
        eyes_box=clip.eyes_boxes[index],
        guides=clip.guides,
        guide_pixels=clip.guide_pixels[index],
    )
