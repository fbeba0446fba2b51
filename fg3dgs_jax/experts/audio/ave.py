"""SyncTalk's audio-visual encoder: 200 ms of mel -> 512 numbers, one row per video frame.

The sound tower of a lip-sync network, one residual block shorter than Wav2Lip's and without the
final normalisation. The published weights are for non-commercial use (CC BY-NC 4.0) and are not
part of this project.
"""

import os

import jax
import numpy as np

from fg3dgs_jax.experts.lips.wav2lip import (
    EMBEDDING,
    MEL_BINS,
    MEL_COLUMNS,
    SOUND_BLOCKS,
    Tower,
    convert_tower,
)
from fg3dgs_jax.media import mel
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.keys import Keys

BLOCKS = SOUND_BLOCKS[:11] + SOUND_BLOCKS[12:]
REPEATS = 2  # rows that stand in before the first window and after the last
_BATCH = 64  # windows a call
_SILENCE = -4.0  # the mel's floor


def convert(state: dict[str, np.ndarray]) -> dict:
    """The encoder's torch state dict, keys `0.conv_block.0.weight` and on -> variables.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    with Keys(state, source="the checkpoint of SyncTalk's audio-visual encoder") as keys:
        params, stats = convert_tower(keys, "", BLOCKS, 1)
    return {"params": params, "batch_stats": stats}


def load(path: os.PathLike | str) -> dict:
    """Variables from the published `audio_visual_encoder.pth` or our converted `.npz`."""
    return variables_lib.load(path, convert)


def encode(variables: dict, windows: jax.Array | np.ndarray) -> np.ndarray:
    """Mel windows [B, 80, 16] from `mel_windows` -> float32 [B, 512], none negative."""
    windows = np.asarray(windows, np.float32)
    if windows.ndim != 3 or windows.shape[1:] != (MEL_BINS, MEL_COLUMNS):
        raise ValueError(
            f"mel windows have shape {windows.shape}; expected [B, 80, 16], as mel_windows gives"
        )
    out = [np.zeros((0, EMBEDDING), np.float32)]
    for start in range(0, len(windows), _BATCH):
        # The last batch is filled up, so that one program serves them all.
        index = np.minimum(np.arange(start, start + _BATCH), len(windows) - 1)
        out.append(np.asarray(_encode(variables, windows[index])))
    return np.concatenate(out)[: len(windows)]


def num_windows(num_columns: int) -> int:
    """How many windows the published loop takes of so many mel columns, 16 or more."""
    return int((num_columns - MEL_COLUMNS) / 80.0 * 25.0) + 2


def mel_windows(columns: np.ndarray) -> np.ndarray:
    """Mel columns [F, 80] of `mel.wav2lip_columns` -> float32 [N, 80, 16], window i from i / 25 s.

    Sixteen columns from floor(80 i / 25) on, or the last sixteen where fewer are left; silence
    comes after a sound of fewer.
    """
    columns = np.asarray(columns, np.float32)
    lacking = max(0, MEL_COLUMNS - len(columns))
    columns = np.pad(columns, ((0, lacking), (0, 0)), constant_values=_SILENCE)
    first = 16 * np.arange(num_windows(len(columns))) // 5
    first = np.minimum(first, len(columns) - MEL_COLUMNS)
    return np.swapaxes(columns[first[:, None] + np.arange(MEL_COLUMNS)], 1, 2)


def features(variables: dict, samples: np.ndarray, num_frames: int | None = None) -> np.ndarray:
    """16 kHz mono samples [n > 0] -> float32 [N, 1, 512], one row per video frame.

    Row i hears the 200 ms from (i - 2) / 25 s on, the first window standing in for the two before
    it, the last for two after it. N is `num_frames` (the last row repeated, or rows left out), or
    as published: 1065 mel columns give 333.
    """
    rows = encode(variables, mel_windows(mel.wav2lip_columns(samples)))
    rows = np.pad(rows, ((REPEATS, REPEATS), (0, 0)), mode="edge")
    count = len(rows) if num_frames is None else num_frames
    return rows[np.minimum(np.arange(count), len(rows) - 1)][:, None]


@jax.jit
def _encode(variables, windows):
    return Tower(BLOCKS).apply(variables, windows[..., None])
