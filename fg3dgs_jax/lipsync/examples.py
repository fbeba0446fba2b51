"""What teaches the lip-sync expert: segments of clips, disturbed, and all shifts between them.

Within a segment every mouth window meets the sound of every other: the right one has to stand out
against all wrong ones, which are the same voice and the same light a few frames away. Shifts of one
frame count as neither right nor wrong.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.lipsync import expert

STORED = 72  # px, side of the stored mouths
MARGIN = 1.25  # how much larger their square is than the one the network looks into
HARD = range(2, 7)  # frames: shifts that are hard to tell from none
REACH = 15  # frames, largest shift of a run's mean
TURN = 0.14  # radians, largest turn of a disturbed mouth
THROAT = 0.08  # largest change of a voice's frequencies, as a logarithm
RUN = 14  # windows whose mean has to stand out
_FAR = -1e9


class SyncClip(NamedTuple):
    """What the expert sees and hears of one clip."""

    name: str
    mouths: np.ndarray  # uint8 [T, 72, 72, 3], MARGIN times the square of `mouth_boxes`
    sound: np.ndarray  # float32 [T, 16, 80], `windows.mel_windows`


def plain_mouths(stored: jax.Array | np.ndarray) -> jax.Array:
    """Stored mouths [..., 72, 72, 3] uint8 -> what the network looks into, grey [..., 48, 48]."""
    edge = STORED * (1 - 1 / MARGIN) / 2
    boxes = jnp.broadcast_to(jnp.array([edge, edge, STORED - edge, STORED - edge]), (4,))
    grey = stored.astype(jnp.float32) / 255.0 @ jnp.array(expert.GREY)
    return expert.cut(grey[..., None], boxes)[..., 0]


def disturb(
    key: jax.Array,
    stored: jax.Array | np.ndarray,
    windows: jax.Array,
    strength: float | jax.Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Another camera, light, voice and microphone for each segment.

    Args:
      key: consumed.
      stored: uint8 [B, S, 72, 72, 3].
      windows: standardised mel windows [B, V, 16, 80].
      strength: 0 (nothing changes) to 1.

    Returns:
      Grey mouths [B, S, 48, 48] and windows. Every segment is changed by itself but the same way
      from its first frame to its last.
    """
    key_mouths, key_sound = jax.random.split(key)
    return (
        _disturb_mouths(key_mouths, stored, strength),
        _disturb_sound(key_sound, windows, strength),
    )


def _disturb_mouths(key, stored, strength):
    """Place, size, turn, mirror image, colour cast, gamma, light from a side, blur, noise."""
    keys = iter(jax.random.split(key, 11))

    def amount(size, *more):
        uniform = jax.random.uniform(next(keys), (len(stored), *more), minval=-1.0, maxval=1.0)
        return strength * size * uniform

    colours = jnp.array(expert.GREY) * jnp.exp(amount(0.3, 3))
    grey = jnp.einsum("bshwc,bc->bshw", stored.astype(jnp.float32) / 255.0, colours)
    places = STORED / 2 + amount(0.06 * STORED, 2)
    size, shape = jnp.exp(amount(0.12)), jnp.exp(amount(0.08))
    half = STORED / MARGIN / 2 * size[:, None] * jnp.stack([1 / shape, shape], 1)
    mouths = _turned(grey, places, half, amount(TURN))
    mirrored = jax.random.bernoulli(next(keys), 0.5 * strength, (len(stored), 1, 1, 1))
    mouths = jnp.where(mirrored, mouths[..., ::-1], mouths)
    mouths = jnp.maximum(mouths, 1e-4) ** jnp.exp(amount(0.4, 1, 1, 1))
    across = jnp.linspace(-1.0, 1.0, expert.SIZE)
    slopes = amount(0.3, 2, 1, 1, 1)
    mouths = mouths * (1 + slopes[:, 0] * across[:, None] + slopes[:, 1] * across)
    blurred = _blur(_blur(mouths))
    mouths = mouths + jnp.abs(amount(0.8, 1, 1, 1)) * (blurred - mouths)
    grain = jnp.abs(amount(0.03, 1, 1, 1))
    return mouths + grain * jax.random.normal(next(keys), mouths.shape)


def _disturb_sound(key, windows, strength):
    """Pitch and length of the throat, loudness and colour of the microphone, noise."""
    key_throat, key_colour, key_hiss = jax.random.split(key, 3)
    batch, bands = len(windows), jnp.arange(float(windows.shape[-1]))
    stretch = strength * THROAT * jax.random.uniform(key_throat, (batch, 1), minval=-1, maxval=1)
    # Band k of the other voice is band k exp(stretch) of this one.
    source = jnp.clip(bands * jnp.exp(stretch), 0, len(bands) - 1)
    between = jnp.maximum(0.0, 1 - jnp.abs(source[:, :, None] - bands))
    windows = jnp.einsum("bvtk,bok->bvto", windows, between)
    sizes = jnp.array([0.4, 0.27, 0.2, 0.16])  # of loudness, tilt and finer shapes
    shapes = jnp.cos(jnp.pi * jnp.arange(4)[:, None] * bands / len(bands))
    colour = strength * sizes * jax.random.normal(key_colour, (batch, 4)) @ shapes
    hiss = 0.3 * strength * jax.random.normal(key_hiss, windows.shape)
    return windows + colour[:, None, None] + hiss


def _turned(pictures, middles, half, angles):
    """Rectangles cut out of pictures and turned, between pixels by their four neighbours.

    Args:
      pictures: [B, S, H, H].
      middles: [B, 2] px, (x, y).
      half: [B, 2] px, half of their sides.
      angles: [B] radians.

    Returns:
      [B, S, 48, 48].
    """
    batch, frames, side, _ = pictures.shape
    across = (jnp.arange(expert.SIZE) + 0.5) / expert.SIZE * 2 - 1
    x, y = (half[:, k, None, None] * axis for k, axis in enumerate(jnp.meshgrid(across, across)))
    cosine, sine = (f(angles)[:, None, None] for f in (jnp.cos, jnp.sin))
    x, y = (
        jnp.clip(middles[:, k, None, None] + turned - 0.5, 0.0, side - 1.001)
        for k, turned in enumerate((cosine * x - sine * y, sine * x + cosine * y))
    )
    column, row = jnp.floor(x).astype(int), jnp.floor(y).astype(int)
    right, down = (x - column)[:, None], (y - row)[:, None]
    flat = pictures.reshape(batch, frames, side * side)

    def neighbour(below, beside):
        index = ((row + below) * side + column + beside).reshape(batch, 1, -1)
        index = jnp.broadcast_to(index, (batch, frames, index.shape[-1]))
        values = jnp.take_along_axis(flat, index, -1)
        return values.reshape(batch, frames, expert.SIZE, expert.SIZE)

    upper = (1 - right) * neighbour(0, 0) + right * neighbour(0, 1)
    lower = (1 - right) * neighbour(1, 0) + right * neighbour(1, 1)
    return (1 - down) * upper + down * lower


def _blur(pictures):
    """[B, S, H, W] smoothed over three pixels either way, the border repeated."""
    x = jnp.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    x = 0.25 * x[:, :, :-2] + 0.5 * x[:, :, 1:-1] + 0.25 * x[:, :, 2:]
    return 0.25 * x[..., :-2] + 0.5 * x[..., 1:-1] + 0.25 * x[..., 2:]


def embed(
    params: dict,
    mouths: jax.Array | np.ndarray,
    windows: jax.Array | np.ndarray,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Grey mouths [B, S, 48, 48], standardised windows [B, V, 16, 80] -> unit [B, V, 64] twice.

    V = S - 4. With a key (consumed) units are dropped, as in training.
    """
    train = key is not None
    keys = [{"dropout": k} for k in jax.random.split(key)] if train else [None, None]
    lips = expert.MouthTower().apply(
        {"params": params["mouth"]}, expert.standardise_grey(mouths), train, rngs=keys[0]
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
