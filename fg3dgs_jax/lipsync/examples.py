"""What teaches the lip-sync expert: segments of clips, disturbed, and all shifts between them.

Within a segment every mouth window meets the sound of every other: the right one has to stand out
against all wrong ones, which are the same voice and the same light a few frames away. Shifts of one
frame count as neither right nor wrong.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip import processed
from fg3dgs_jax.lipsync import expert
from fg3dgs_jax.media import windows as windows_lib

STORED = 72  # px, side of the stored mouths
MARGIN = 1.25  # how much larger their square is than the one the network looks into
HARD = range(2, 7)  # frames: shifts that are hard to tell from none
REACH = 15  # frames, largest shift of a run's mean
RUN = 14  # windows whose mean has to stand out
_FAR = -1e9
_CHUNK = 64  # frames cut at once


class SyncClip(NamedTuple):
    """What the expert sees and hears of a processed folder."""

    name: str
    mouths: np.ndarray  # uint8 [T, 72, 72, 3], MARGIN times the square of `mouth_boxes`
    sound: np.ndarray  # float32 [T, 16, 80], `windows.mel_windows`


def sync_clip(clip: processed.Clip, samples: np.ndarray) -> SyncClip:
    """A processed folder and its int16 samples (16 kHz) as the expert's training takes them."""
    boxes = expert.mouth_boxes(clip.landmarks)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * MARGIN
    wide = np.concatenate([middle - half, middle + half], 1)
    mouths = np.empty((clip.num_frames, STORED, STORED, 3), np.uint8)
    for start in range(0, clip.num_frames, _CHUNK):
        part = slice(start, start + _CHUNK)
        mouths[part] = np.rint(_cut(np.asarray(clip.frames[part]), wide[part]))
    return SyncClip(
        clip.path.resolve().name, mouths, windows_lib.mel_windows(samples, clip.num_frames)
    )


@jax.jit
def _cut(frames, boxes):
    return expert.cut(frames.astype(jnp.float32), boxes, STORED)


def plain_mouths(stored: jax.Array | np.ndarray) -> jax.Array:
    """Stored mouths [..., 72, 72, 3] uint8 -> what the network looks into, RGB [..., 48, 48, 3]."""
    edge = STORED * (1 - 1 / MARGIN) / 2
    boxes = jnp.broadcast_to(jnp.array([edge, edge, STORED - edge, STORED - edge]), (4,))
    return expert.cut(stored.astype(jnp.float32) / 255.0, boxes)


def disturb(
    key: jax.Array,
    stored: jax.Array | np.ndarray,
    windows: jax.Array,
    strength: float | jax.Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Another camera, light and microphone for each segment.

    Args:
      key: consumed.
      stored: uint8 [B, S, 72, 72, 3].
      windows: standardised mel windows [B, V, 16, 80].
      strength: 0 (nothing changes) to 1.

    Returns:
      RGB mouths [B, S, 48, 48, 3] and windows, every segment changed by itself but the same way
      from its first frame to its last: place, size, mirror image, gamma, colour cast, light from a
      side, noise; loudness and noise of the sound.
    """
    batch = len(stored)
    keys = iter(jax.random.split(key, 11))

    def amount(size, *more):
        uniform = jax.random.uniform(next(keys), (batch, *more), minval=-1.0, maxval=1.0)
        return strength * size * uniform

    places = STORED / 2 + amount(0.06 * STORED, 2)
    size, shape = jnp.exp(amount(0.12)), jnp.exp(amount(0.08))
    half = STORED / MARGIN / 2 * size[:, None] * jnp.stack([1 / shape, shape], 1)
    boxes = jnp.concatenate([places - half, places + half], 1)
    mouths = expert.cut(stored.astype(jnp.float32) / 255.0, boxes[:, None])
    mirrored = jax.random.bernoulli(next(keys), 0.5 * strength, (batch, 1, 1, 1, 1))
    mouths = jnp.where(mirrored, mouths[..., ::-1, :], mouths)
    mouths = jnp.maximum(mouths, 1e-4) ** jnp.exp(amount(0.4, 1, 1, 1, 1))
    across = jnp.linspace(-1.0, 1.0, expert.SIZE)
    slopes = amount(0.3, 2, 1, 1, 1, 1)
    mouths = mouths * jnp.exp(amount(0.3, 1, 1, 1, 3))
    mouths = mouths * (1 + slopes[:, 0] * across[:, None, None] + slopes[:, 1] * across[:, None])
    grain = jnp.abs(amount(0.03, 1, 1, 1, 1))
    mouths = mouths + grain * jax.random.normal(next(keys), mouths.shape)
    louder = 0.3 * strength * jax.random.normal(next(keys), (batch, 1, 1, 1))
    hiss = 0.3 * strength * jax.random.normal(next(keys), windows.shape)
    return mouths, windows + louder + hiss


def embed(
    params: dict,
    mouths: jax.Array | np.ndarray,
    windows: jax.Array | np.ndarray,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """RGB mouths [B, S, 48, 48, 3], standardised windows [B, V, 16, 80] -> unit [B, V, 64] twice.

    V = S - 4. With a key (consumed) units are dropped, as in training.
    """
    train = key is not None
    keys = [{"dropout": k} for k in jax.random.split(key)] if train else [None, None]
    lips = expert.MouthTower().apply(
        {"params": params["mouth"]}, expert.standardise(mouths), train, rngs=keys[0]
    )
    sound = expert.SoundTower().apply({"params": params["sound"]}, windows, train, rngs=keys[1])
    return expert.unit(lips), expert.unit(sound)


def shift_losses(similar: jax.Array | np.ndarray) -> dict:
    """Cross entropies of the right pairs, [] each.

    Args:
      similar: [B, V, V] logits, mouth windows down, sound windows across; right on the diagonal.

    Returns:
      "sound": which sound fits a mouth, of all in the segment; "mouth": which mouth fits a sound;
      "hard": as "sound", against shifts of 2 to 6 frames only; "run": which of the shifts of up to
      15 frames fits half a second, by the mean over its windows.
    """
    count = similar.shape[-1]
    shift = jnp.arange(count) - jnp.arange(count)[:, None]
    near = jnp.where(jnp.abs(shift) == 1, _FAR, 0.0)
    allowed = (shift == 0) | ((jnp.abs(shift) >= HARD[0]) & (jnp.abs(shift) <= HARD[-1]))

    def right(logits, axis):
        chosen = jax.nn.log_softmax(logits, axis)
        return -jnp.mean(jnp.diagonal(chosen, axis1=-2, axis2=-1))

    losses = {
        "sound": right(similar + near, -1),
        "mouth": right(similar + near, -2),
        "hard": right(jnp.where(allowed, similar, _FAR), -1),
    }
    rows = np.arange(REACH, count - REACH)
    rows = rows[: len(rows) // RUN * RUN]
    if len(rows):
        by_shift = similar[:, rows[:, None], rows[:, None] + np.arange(-REACH, REACH + 1)]
        means = by_shift.reshape(len(similar), -1, RUN, 2 * REACH + 1).mean(2)
        close = jnp.where(np.abs(np.arange(-REACH, REACH + 1)) == 1, _FAR, 0.0)
        losses["run"] = -jnp.mean(jax.nn.log_softmax(3.0 * means + close, -1)[..., REACH])
    return losses


def loss(
    params: dict,
    stored: jax.Array | np.ndarray,
    windows: jax.Array | np.ndarray,
    key: jax.Array,
    strength: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean of what `shift_losses` finds in disturbed segments; key is consumed.

    Args:
      params: of `expert.init`; only towers and scale are learnt.
      stored: uint8 [B, S, 72, 72, 3].
      windows: mel windows [B, S - 4, 16, 80], of each window's middle frame.
      key: consumed.
      strength: of `disturb`.
    """
    key_disturb, key_drop = jax.random.split(key)
    bands = jax.lax.stop_gradient({"bands": params["bands"]})
    mouths, windows = disturb(
        key_disturb, stored, expert.standardise_sound(bands, windows), strength
    )
    lips, sound = embed(params, mouths, windows, key_drop)
    similar = jnp.exp(params["log_scale"]) * jnp.einsum("bvc,bwc->bvw", lips, sound)
    parts = shift_losses(similar)
    return sum(parts.values(), jnp.zeros(())) / len(parts), parts
