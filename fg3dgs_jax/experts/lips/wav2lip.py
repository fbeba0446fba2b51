"""The lip-sync expert of Wav2Lip (`SyncNet_color`): do five frames of a mouth fit their sound?

Two towers of convolutions look at the lower half of a face in five consecutive frames and at
sixteen mel columns; the cosine of their embeddings is the network's word for "in sync". As a loss
it pulls rendered mouths towards the sound: gradients reach the pictures, never the expert.

The published weights may be used for research only, and are not part of this project.
"""

import os
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.media import mel
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.keys import Keys

FRAMES = 5  # a window, 200 ms at 25 frames a second
FACE_SIZE = 96  # px; the network sees the lower half
MEL_COLUMNS = 16  # 200 ms at 80 columns a second
MEL_BINS = 80
EMBEDDING = 512
MIN_COSINE = 1e-7  # bounds the loss by 16.1
_PRECISION = jax.lax.Precision.HIGHEST

# features, kernel, stride (down, across), padding, residual
FACE_BLOCKS = (
    (32, 7, (1, 1), 3, False),
    (64, 5, (1, 2), 1, False),
    (64, 3, (1, 1), 1, True),
    (64, 3, (1, 1), 1, True),
    (128, 3, (2, 2), 1, False),
    (128, 3, (1, 1), 1, True),
    (128, 3, (1, 1), 1, True),
    (128, 3, (1, 1), 1, True),
    (256, 3, (2, 2), 1, False),
    (256, 3, (1, 1), 1, True),
    (256, 3, (1, 1), 1, True),
    (512, 3, (2, 2), 1, False),
    (512, 3, (1, 1), 1, True),
    (512, 3, (1, 1), 1, True),
    (512, 3, (2, 2), 1, False),
    (512, 3, (1, 1), 0, False),
    (512, 1, (1, 1), 0, False),
)
SOUND_BLOCKS = (
    (32, 3, (1, 1), 1, False),
    (32, 3, (1, 1), 1, True),
    (32, 3, (1, 1), 1, True),
    (64, 3, (3, 1), 1, False),
    (64, 3, (1, 1), 1, True),
    (64, 3, (1, 1), 1, True),
    (128, 3, (3, 3), 1, False),
    (128, 3, (1, 1), 1, True),
    (128, 3, (1, 1), 1, True),
    (256, 3, (3, 2), 1, False),
    (256, 3, (1, 1), 1, True),
    (256, 3, (1, 1), 1, True),
    (512, 3, (1, 1), 0, False),
    (512, 1, (1, 1), 0, False),
)


class _Block(nn.Module):
    """Convolution, batch norm with the stored statistics, the input again if residual, ReLU."""

    features: int
    kernel: int
    stride: tuple[int, int]
    padding: int
    residual: bool

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            [(self.padding, self.padding)] * 2,
            precision=_PRECISION,
            name="conv",
        )
        y = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(conv(x))
        return nn.relu(x + y if self.residual else y)


class Tower(nn.Module):
    """[B, H, W, C] -> [B, 512], through blocks that shrink the map to one pixel."""

    blocks: tuple

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Windows [B, H, W, C] -> embeddings [B, 512], not of unit length."""
        for i, block in enumerate(self.blocks):
            x = _Block(*block, name=f"block_{i}")(x)
        if x.shape[1:3] != (1, 1):
            raise ValueError(
                f"the tower ends in a map of {x.shape[1]} x {x.shape[2]}; expected 1 x 1: give it "
                "faces [B, 48, 96, 15] or mel windows [B, 80, 16]"
            )
        return x[:, 0, 0]


def convert(state: dict[str, np.ndarray]) -> dict:
    """The expert's torch state dict, name -> array -> {"params", "batch_stats"} of both towers.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    variables = {"params": {}, "batch_stats": {}}
    with Keys(state, source="the checkpoint of Wav2Lip's SyncNet_color") as keys:
        for tower, key, blocks, channels in (
            ("face", "face_encoder", FACE_BLOCKS, 3 * FRAMES),
            ("sound", "audio_encoder", SOUND_BLOCKS, 1),
        ):
            params, stats = convert_tower(keys, f"{key}.", blocks, channels)
            variables["params"][tower], variables["batch_stats"][tower] = params, stats
    return variables


def convert_tower(keys: Keys, prefix: str, blocks: Sequence, channels: int) -> tuple[dict, dict]:
    """(params, batch_stats) of a `Tower` of `blocks` on `channels`, keys `PREFIX i.conv_block`."""
    params, stats = {}, {}
    for i, (features, kernel, *_) in enumerate(blocks):
        block = f"{prefix}{i}.conv_block"
        conv = keys.conv(f"{block}.0", shape=(features, channels, kernel, kernel))
        norm, running = keys.batch_norm(f"{block}.1")
        params[f"block_{i}"] = {"conv": conv, "norm": norm}
        stats[f"block_{i}"] = {"norm": running}
        channels = features
    return params, stats


def load(path: os.PathLike | str) -> dict:
    """The variables in `lipsync_expert.pth`, its optimizer passed over, or in our npz of it."""
    return variables_lib.load(path, convert)


def embed_faces(variables: dict, faces: jax.Array | np.ndarray) -> jax.Array:
    """Lower faces [B, 48, 96, 15] from `lower_faces` -> unit embeddings [B, 512], none negative.

    Differentiable in the faces; the expert itself gets no gradient.
    """
    if faces.ndim != 4 or faces.shape[1:] != (FACE_SIZE // 2, FACE_SIZE, 3 * FRAMES):
        raise ValueError(
            f"faces have shape {faces.shape}; expected [B, 48, 96, 15], as lower_faces gives"
        )
    return _embed(variables, "face", FACE_BLOCKS, faces)


def embed_sound(variables: dict, windows: jax.Array | np.ndarray) -> jax.Array:
    """Mel windows [B, 80, 16] from `mel_windows` -> unit embeddings [B, 512], none negative."""
    if windows.ndim != 3 or windows.shape[1:] != (MEL_BINS, MEL_COLUMNS):
        raise ValueError(
            f"mel windows have shape {windows.shape}; expected [B, 80, 16], as mel_windows gives"
        )
    return _embed(variables, "sound", SOUND_BLOCKS, windows[..., None])


def sync_loss(
    variables: dict, faces: jax.Array | np.ndarray, sound: jax.Array | np.ndarray
) -> jax.Array:
    """How badly mouths fit the sound: the mean of -log cosine, 0 (in sync) to 16.1.

    Args:
      variables: from `convert`.
      faces: [B, 48, 96, 15] from `lower_faces`; gradients go here.
      sound: [B, 512] from `embed_sound`, which is worth keeping: it does not depend on the faces.
    """
    return loss_of_cosine(cosine(embed_faces(variables, faces), jax.lax.stop_gradient(sound)))


def cosine(faces: jax.Array | np.ndarray, sound: jax.Array | np.ndarray) -> jax.Array:
    """Of two batches of unit embeddings [B, 512]: [B], in [0, 1] as neither is ever negative."""
    return jnp.einsum("bc,bc->b", faces, sound, precision=_PRECISION)


def loss_of_cosine(cosines: jax.Array) -> jax.Array:
    """Mean over [B] of -log max(cosine, 1e-7): finite everywhere, no gradient below 1e-7.

    Near that bound the gradient is up to 1e7 a picture: clip it, and begin with mouths that have
    learned something.
    """
    return -jnp.mean(jnp.log(jnp.maximum(cosines, MIN_COSINE)))


def lower_faces(frames: jax.Array | np.ndarray, boxes: jax.Array | np.ndarray) -> jax.Array:
    """Cuts faces out as the expert saw them: 96 x 96 px, lower half, BGR, the frames as channels.

    Bilinear between pixel centres without smoothing, border pixels repeated: OpenCV's INTER_LINEAR
    of frame[y0:y1, x0:x1]. As two matrix products, for its gradient is then two more, without a
    scatter.

    Args:
      frames: RGB [B, 5, H, W, 3] in [0, 1], consecutive at 25 frames a second.
      boxes: [B, 5, 4] px: x0, y0, x1, y1 of the whole face without margin, cut at the picture's
        border; at least one pixel of the picture each way.

    Returns:
      [B, 48, 96, 15] in [0, 1], channels B0 G0 R0 B1 G1 R1 ...; differentiable in the frames.
    """
    if frames.ndim != 5 or frames.shape[1] != FRAMES or frames.shape[-1] != 3:
        raise ValueError(f"frames have shape {frames.shape}; expected RGB [B, 5, H, W, 3]")
    if not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ValueError(f"frames are {frames.dtype}; expected floats in [0, 1]: divide by 255")
    if boxes.shape != frames.shape[:2] + (4,):
        raise ValueError(
            f"boxes have shape {boxes.shape}; expected {frames.shape[:2] + (4,)}: x0, y0, x1, y1 "
            "for every frame"
        )
    height, width = frames.shape[2:4]
    boxes = jnp.asarray(boxes, jnp.float32)
    down = _resize_matrix(boxes[..., 1], boxes[..., 3], height)[..., FACE_SIZE // 2 :, :]
    across = _resize_matrix(boxes[..., 0], boxes[..., 2], width)
    rows = jnp.einsum("bfyh,bfhwc->bfywc", down, frames, precision=_PRECISION)
    faces = jnp.einsum("bfxw,bfywc->byxfc", across, rows, precision=_PRECISION)
    return faces[..., ::-1].reshape(faces.shape[:3] + (3 * FRAMES,))


def mel_columns(samples: np.ndarray) -> np.ndarray:
    """16 kHz samples [n] -> float32 [1 + n // 200, 80] in [-4, 4]: `mel.wav2lip_columns`."""
    if not len(samples):
        raise ValueError("there are no samples; expected some sound, 16 kHz mono")
    return mel.wav2lip_columns(samples)


def num_windows(num_frames: int, num_columns: int) -> int:
    """How many first frames t have five frames and sixteen mel columns before clip and mel end."""
    by_sound = (5 * (num_columns - MEL_COLUMNS) + 4) // 16 + 1  # 16 t // 5 <= columns - 16
    return max(0, min(num_frames - FRAMES + 1, by_sound))


def mel_windows(columns: np.ndarray, first_frames: np.ndarray) -> np.ndarray:
    """The sound of five frames: columns [n, 80] -> float32 [..., 80, 16].

    The sixteen columns start at floor(80 t / 25) for each t in `first_frames` [...], the number of
    the window's first frame.
    """
    first = np.asarray(first_frames)
    last_legal = num_windows(len(columns) + FRAMES, len(columns)) - 1
    if first.size and (first.min() < 0 or first.max() > last_legal):
        raise ValueError(
            f"windows start at frames {first.min()} to {first.max()}; expected 0 to {last_legal} "
            f"for {len(columns)} mel columns: see num_windows"
        )
    index = (16 * first // 5)[..., None] + np.arange(MEL_COLUMNS)
    return np.swapaxes(np.asarray(columns)[index], -1, -2)


def _embed(variables, tower, blocks, x):
    frozen = jax.lax.stop_gradient({kind: leaves[tower] for kind, leaves in variables.items()})
    return _unit(Tower(blocks).apply(frozen, x.astype(jnp.float32)))


def _unit(x):
    """Rows of unit length; a row that is zero, which ReLU can make, stays so with no gradient."""
    squared = jnp.sum(x**2, -1, keepdims=True)
    dead = squared <= 1e-24
    return jnp.where(dead, 0.0, x / jnp.sqrt(jnp.where(dead, 1.0, squared)))


def _resize_matrix(start, stop, size):
    """Rows of weights [..., 96, size] that resample pixels start .. stop - 1 of `size` to 96."""
    start, stop = jnp.maximum(start, 0.0)[..., None], jnp.minimum(stop, float(size))[..., None]
    centre = start + (jnp.arange(FACE_SIZE) + 0.5) * (stop - start) / FACE_SIZE - 0.5
    centre = jnp.clip(centre, start, stop - 1.0)[..., None]
    return jnp.maximum(0.0, 1.0 - jnp.abs(centre - jnp.arange(size)))
