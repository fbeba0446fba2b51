"""Sound -> one feature window per video frame.

Row i of every feature array belongs to frame i, which is shown from i/25 s to (i + 1)/25 s and
starts at sample 640 i.
"""

import jax
import numpy as np

from fg3dgs_jax.media import mel
from fg3dgs_jax.media.clock import SAMPLES_PER_FRAME

MEL_COLUMNS = 16  # 200 ms at 80 columns a second
MEL_BINS = 80
SILENCE = -1.0  # what mel_windows gives for digital silence and outside the sound
WINDOW_OFFSETS = np.arange(-4, 4)  # the 8 rows that drive one frame


def num_frames_of(samples: np.ndarray) -> int:
    """How many frames it takes to cover all the samples [n]: ceil(n / 640)."""
    return -(-len(samples) // SAMPLES_PER_FRAME)


def mel_columns(samples: np.ndarray) -> np.ndarray:
    """The columns of `mel.wav2lip_columns`, divided by 4.

    Args:
      samples: [n] at 16 kHz.

    Returns:
      float32 [1 + n // 200, 80] in [-1, 1], column k centred on k/80 s.
    """
    if not len(samples):
        return np.full((1, MEL_BINS), SILENCE, np.float32)
    return mel.wav2lip_columns(samples) / 4


def mel_windows(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """16 kHz samples [n] -> float32 [num_frames, 16, 80] in [-1, 1], row i centred on frame i.

    The middle of frame i is mel column 3.2 (i + 0.5) and 16 columns from k0 on are centred on
    k0 + 7.5, so k0 = round(3.2 i - 5.9) = floor((16 i - 27) / 5), never more than half a column
    (6.25 ms) off. Silence outside the sound.
    """
    columns = mel_columns(samples)
    first = (16 * np.arange(num_frames) - 27) // 5
    index = first[:, None] + np.arange(MEL_COLUMNS)
    inside = (index >= 0) & (index < len(columns))
    windows = columns[np.clip(index, 0, len(columns) - 1)]
    return np.where(inside[..., None], windows, np.float32(SILENCE))


def whisper_windows(features_50hz: jax.Array | np.ndarray, num_frames: int) -> np.ndarray:
    """50 Hz features [n, D] -> float32 [num_frames, 2, D]: rows 2i, 2i + 1, zeros after the end."""
    features = np.asarray(features_50hz, np.float32)
    out = np.zeros((2 * num_frames, features.shape[1]), np.float32)
    out[: len(features)] = features[: len(out)]
    return out.reshape(num_frames, 2, -1)


def slice_windows(features: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The rows around each frame that drive it.

    Args:
      features: [T, A, D].
      index: frame numbers [...].

    Returns:
      [..., 8, A, D]: rows index - 4 .. index + 3, zeros outside the clip.
    """
    features = np.asarray(features)
    rows = np.asarray(index)[..., None] + WINDOW_OFFSETS
    inside = (rows >= 0) & (rows < len(features))
    picked = features[np.clip(rows, 0, len(features) - 1)]
    return np.where(inside[..., None, None], picked, features.dtype.type(0))
