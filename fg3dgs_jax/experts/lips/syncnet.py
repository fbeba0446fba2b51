"""SyncNet v2: how far a mouth is from its sound, as the metrics LSE-D and LSE-C.

Two towers give 1024 numbers for five frames of a face and for the 200 ms of sound that go with
them. Distances between the two, at every shift of up to 15 frames, are the metric: LSE-D is the
smallest mean distance, LSE-C how much that is below the median one.

Pictures are RGB here and BGR for the network; both are 0..255.
"""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple, cast

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.media import mel
from fg3dgs_jax.media.clock import SAMPLES_PER_FRAME
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.keys import Keys

FRAMES = 5  # a window
FACE_SIZE = 224  # px
EMBEDDING = 1024
MFCC_COLUMNS = 20  # 200 ms at 100 columns a second
COEFFICIENTS = 13
MAX_SHIFT = 15  # frames, each way
BATCH = 20  # windows a call
MIN_TRACK = 7  # frames: of fewer, the protocol's median would be the zeros around the track
_PRECISION = jax.lax.Precision.HIGHEST
_COLUMNS_PER_FRAME = 4
_MEDIAN, _MARGIN, _BORDER = 13, 0.4, 110  # frames; of half a box; grey around the picture

# Number of the convolution in the state dict, features, kernel, stride, padding, and of the
# max-pooling after it: window, stride, padding. The lip tower's first kernel is five frames deep,
# as deep as a window, and no other looks across frames: frames are channels, and all is flat.
LIP_LAYERS = (
    (0, 96, (7, 7), (2, 2), 0, ((3, 3), (2, 2), 0)),
    (4, 256, (5, 5), (2, 2), 1, ((3, 3), (2, 2), 1)),
    (8, 256, (3, 3), (1, 1), 1, None),
    (11, 256, (3, 3), (1, 1), 1, None),
    (14, 256, (3, 3), (1, 1), 1, ((3, 3), (2, 2), 0)),
    (18, 512, (6, 6), (1, 1), 0, None),
)
SOUND_LAYERS = (
    (0, 64, (3, 3), (1, 1), 1, None),
    (4, 192, (3, 3), (1, 1), 1, ((3, 3), (1, 2), 0)),
    (8, 384, (3, 3), (1, 1), 1, None),
    (11, 256, (3, 3), (1, 1), 1, None),
    (14, 256, (3, 3), (1, 1), 1, ((3, 3), (2, 2), 0)),
    (18, 512, (5, 4), (1, 1), 0, None),
)


class Tower(nn.Module):
    """[B, H, W, C] -> [B, 1024]: convolutions down to one pixel, then two dense layers."""

    layers: tuple

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Windows [B, H, W, C] -> embeddings [B, 1024]."""
        norm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)
        for number, features, kernel, stride, padding, pool in self.layers:
            conv = nn.Conv(
                features,
                kernel,
                stride,
                [(padding, padding)] * 2,
                precision=_PRECISION,
                name=f"conv_{number}",
            )
            x = nn.relu(norm(name=f"norm_{number}")(conv(x)))
            if pool:
                window, step, edge = pool
                x = nn.max_pool(x, window, step, [(edge, edge)] * 2)  # pyright: ignore[reportArgumentType]  # flax leaves it untyped
        x = nn.Dense(512, precision=_PRECISION, name="dense_0")(x[:, 0, 0])
        x = nn.relu(norm(name="norm_dense")(x))
        return nn.Dense(EMBEDDING, precision=_PRECISION, name="dense_1")(x)


def convert(state: dict[str, np.ndarray]) -> dict:
    """SyncNet v2's torch state dict, name -> array -> {"params", "batch_stats"} of both towers.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    variables = {"params": {}, "batch_stats": {}}
    with Keys(state, source="the checkpoint of SyncNet v2") as keys:
        for tower, suffix, layers, channels in (
            ("lip", "lip", LIP_LAYERS, 3),
            ("sound", "aud", SOUND_LAYERS, 1),
        ):
            params, stats = {}, {}
            for number, features, kernel, *_ in layers:
                key = f"netcnn{suffix}.{number}"
                depth = () if tower == "sound" else (FRAMES,) if number == 0 else (1,)
                conv = keys.conv(key, shape=(features, channels, *depth, *kernel))
                if depth:  # [frames, y, x, colour, out] -> [y, x, (frames, colour), out]
                    conv["kernel"] = np.moveaxis(conv["kernel"], 0, 2).reshape(
                        kernel + (depth[0] * channels, features)
                    )
                params[f"conv_{number}"] = conv
                norm = keys.batch_norm(f"netcnn{suffix}.{number + 1}")
                params[f"norm_{number}"], stats[f"norm_{number}"] = norm
                channels = features
            params["dense_0"] = keys.linear(f"netfc{suffix}.0", shape=(512, channels))
            params["norm_dense"], stats["norm_dense"] = keys.batch_norm(f"netfc{suffix}.1")
            params["dense_1"] = keys.linear(f"netfc{suffix}.3", shape=(EMBEDDING, 512))
            variables["params"][tower], variables["batch_stats"][tower] = params, stats
    return variables


def load(path: os.PathLike | str) -> dict:
    """The variables in `syncnet_v2.model`, or in our npz of it."""
    return variables_lib.load(path, convert)


def embed_lips(variables: dict, windows: jax.Array | np.ndarray) -> jax.Array:
    """RGB faces [B, 5, 224, 224, 3] in 0..255 -> embeddings [B, 1024], of any length."""
    if windows.ndim != 5 or windows.shape[1:] != (FRAMES, FACE_SIZE, FACE_SIZE, 3):
        raise ValueError(
            f"face windows have shape {windows.shape}; expected RGB [B, 5, 224, 224, 3] in 0..255"
        )
    bgr = jnp.moveaxis(windows[..., ::-1], 1, 3).astype(jnp.float32)
    return _embed(variables, "lip", LIP_LAYERS, bgr.reshape(bgr.shape[:3] + (3 * FRAMES,)))


def embed_sound(variables: dict, windows: jax.Array | np.ndarray) -> jax.Array:
    """MFCC windows [B, 13, 20] -> embeddings [B, 1024], of any length."""
    if windows.ndim != 3 or windows.shape[1:] != (COEFFICIENTS, MFCC_COLUMNS):
        raise ValueError(
            f"MFCC windows have shape {windows.shape}; expected [B, 13, 20], as mfcc_windows gives"
        )
    return _embed(variables, "sound", SOUND_LAYERS, windows[..., None].astype(jnp.float32))


def crop_track(frames: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Cuts a face out as the network saw faces: steady, with a margin, more of it below.

    Half the larger side of the boxes and their centres go through a median of 13 frames with zeros
    around the track; 1 half side is kept above the centre, 1.8 below, 1.4 to either side, grey
    where the picture ends; then bilinear to 224 px. The published figures also went through JPEG
    and XVID, this does not.

    Args:
      frames: T pictures uint8 [H, W, 3] at 25 frames a second.
      boxes: [T, 4] px: x0, y0, x1, y1 of the detected face.

    Returns:
      uint8 [T, 224, 224, 3], channels as they were.

    Raises:
      ValueError: fewer than seven frames, boxes of another shape, or a box of no size.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.shape != (len(frames), 4) or len(frames) < MIN_TRACK:
        raise ValueError(
            f"{len(frames)} frames came with boxes {boxes.shape}; expected [T, 4] for T frames, "
            f"{MIN_TRACK} or more"
        )
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    if not (np.isfinite(boxes).all() and (opposite - corner >= 1).all()):
        raise ValueError("a box is not finite or below 1 px; expected x0, y0, x1, y1 in px")
    halves = _median((opposite - corner).max(1) / 2)
    centres = np.stack([_median(middle) for middle in ((corner + opposite) / 2).T], 1)
    crops = [_crop(*track) for track in zip(frames, halves, centres, strict=True)]
    return np.stack(crops)


def num_windows(num_frames: int, num_samples: int) -> int:
    """How many windows the protocol looks at: five fewer than there are frames with sound."""
    return max(0, min(num_frames, num_samples // SAMPLES_PER_FRAME) - FRAMES)


def mfcc(samples: np.ndarray) -> np.ndarray:
    """int16 samples [n > 0] at 16 kHz -> MFCC float64 [T, 13], 100 rows a second: `mel.mfcc`."""
    return mel.mfcc(samples, COEFFICIENTS)


def mfcc_windows(coefficients: np.ndarray, count: int) -> np.ndarray:
    """MFCC [T, 13] -> float32 [count, 13, 20], window v being columns 4 v .. 4 v + 19.

    Raises:
      ValueError: the last window is not within the sound.
    """
    coefficients = np.asarray(coefficients)
    needed = _COLUMNS_PER_FRAME * (count - 1) + MFCC_COLUMNS if count else 0
    if len(coefficients) < needed:
        raise ValueError(
            f"{count} windows need {needed} MFCC rows, found {len(coefficients)}: see num_windows"
        )
    index = _COLUMNS_PER_FRAME * np.arange(count)[:, None] + np.arange(MFCC_COLUMNS)
    return np.swapaxes(coefficients[index], 1, 2).astype(np.float32)


class LipSync(NamedTuple):
    """What `lse` finds."""

    lse_d: float  # smallest mean distance, lower is better
    lse_c: float  # median minus smallest mean distance, higher is better
    offset: int  # frames by which the sound at the best fit lies before the picture
    distances: np.ndarray  # float64 [2 shifts + 1]: mean distance from sound `shifts` early to late


def lse(
    lips: jax.Array | np.ndarray, sound: jax.Array | np.ndarray, max_shift: int = MAX_SHIFT
) -> LipSync:
    """LSE-D and LSE-C of a clip from its two embedding sequences.

    For each shift o the mean over v of |lips[v] - sound[v + o] + 1e-6|, where sound outside the
    clip is zeros: these rows take part, which biases clips of less than some ten seconds.

    Args:
      lips: [N, C], one row a window.
      sound: [N, C], of the same windows.
      max_shift: the largest o, in windows.
    """
    lips, sound = np.asarray(lips, np.float64), np.asarray(sound, np.float64)
    if lips.ndim != 2 or lips.shape != sound.shape or not len(lips):
        raise ValueError(
            f"embeddings have shapes {lips.shape} and {sound.shape}; expected two equal [N, 1024]"
        )
    padded = np.pad(sound, ((max_shift, max_shift), (0, 0)))
    distances = np.array(
        [
            np.linalg.norm(lips - padded[o : o + len(lips)] + 1e-6, axis=1).mean()
            for o in range(2 * max_shift + 1)
        ]
    )
    best = int(distances.argmin())
    smallest = float(distances[best])
    return LipSync(smallest, float(np.median(distances)) - smallest, max_shift - best, distances)


def embed_clip(
    variables: dict, frames: np.ndarray, samples: np.ndarray, batch: int = BATCH
) -> tuple[np.ndarray, np.ndarray]:
    """A face track and its sound -> float32 [N, 1024] of the lips and of the sound, for `lse`.

    Args:
      variables: from `convert`.
      frames: uint8 RGB [T, 224, 224, 3], the cropped face at 25 frames a second.
      samples: int16 [n] at 16 kHz, from the first frame on.
      batch: windows a call.

    Raises:
      ValueError: a clip of fewer than six frames with sound, or another shape.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.shape[1:] != (FACE_SIZE, FACE_SIZE, 3):
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}; expected uint8 RGB [T, 224, 224, 3], as "
            "crop_track gives"
        )
    coefficients = mfcc(samples)
    count = num_windows(len(frames), len(samples))
    if not count:
        raise ValueError(
            f"{len(frames)} frames with {len(samples)} samples hold no window; expected six frames "
            f"or more and {SAMPLES_PER_FRAME} samples for each"
        )
    sound_windows = mfcc_windows(coefficients, count)
    lips, sound = [], []
    for start in range(0, count, batch):
        # The last batch is filled up with its last window, so that one program serves them all.
        index = np.minimum(np.arange(start, start + batch), count - 1)
        windows = frames[index[:, None] + np.arange(FRAMES)]
        lips.append(np.asarray(_embed_lips(variables, windows)))
        sound.append(np.asarray(_embed_sound(variables, sound_windows[index])))
    return np.concatenate(lips)[:count], np.concatenate(sound)[:count]


def score_track(
    variables: dict, frames: np.ndarray, samples: np.ndarray, max_shift: int = MAX_SHIFT
) -> LipSync:
    """LSE-D and LSE-C of one cropped face track; the arguments are those of `embed_clip`."""
    return lse(*embed_clip(variables, frames, samples), max_shift)


def _median(x):
    """[T] -> [T]: running median of 13, zeros beyond both ends."""
    padded = np.pad(x, _MEDIAN // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN), 1)


def _crop(frame, half, centre):
    """One face [224, 224, 3] of one frame; cut to whole pixels where the protocol does it."""
    below, aside = half * (1 + 2 * _MARGIN), half * (1 + _MARGIN)
    border = int(below)
    padded = np.pad(frame, ((border,) * 2, (border,) * 2, (0, 0)), constant_values=_BORDER)
    x, y = centre + border
    # Where a centre lies outside the picture a start may be negative, which would count from the
    # end; a face is never found there.
    rows = slice(max(0, int(y - half)), int(y + below))
    columns = slice(max(0, int(x - aside)), int(x + aside))
    face = padded[rows, columns]
    if not face.size:
        raise ValueError(
            f"a face is centred at {centre.round().tolist()} px, outside its picture of "
            f"{frame.shape[1]} x {frame.shape[0]}; expected boxes in px of the frames"
        )
    return cv2.resize(face, (FACE_SIZE, FACE_SIZE))


def _embed(variables, tower, layers, x):
    own = {kind: leaves[tower] for kind, leaves in variables.items()}
    return cast(jax.Array, Tower(layers).apply(own, x))


_embed_lips = jax.jit(embed_lips)
_embed_sound = jax.jit(embed_sound)
