"""Where somebody speaks and how loud: a voice activity map by energy, and one common level.

Everything is relative to the clip's own quiet and loud moments, so that neither the map nor the
levelled sound depends on how loud the source was.
"""

import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE

TARGET_DB = -20.0  # dBFS, RMS over speech after levelling
MAX_GAIN_DB = 20.0  # either way: beyond it there is no speech to go by, only noise
PEAK = 0.97  # of full scale, which no sample may exceed after a gain
BLOCK = SAMPLE_RATE // 100  # 10 ms
MIN_RANGE_DB = 12.0  # between quiet and loud; below it speech and noise cannot be told apart
SILENCE_DB = -60.0  # dBFS: nothing quieter than this is speech
# Of the way from quiet to loud (dB): speech begins above the first and lasts above the second.
ON, OFF = 0.55, 0.4
MIN_SPEECH, MAX_GAP = 0.08, 0.25  # s: shorter bursts are clicks, shorter pauses belong to speech


def levels(samples: np.ndarray) -> np.ndarray:
    """int16 [n] -> float [n // 160] dBFS, RMS of every 10 ms smoothed over 30 ms."""
    count = len(samples) // BLOCK
    power = np.square(samples[: count * BLOCK].astype(np.float32) / 32768.0)
    power = np.pad(power.reshape(count, BLOCK).mean(1), 1, mode="edge" if count else "constant")
    return 10 * np.log10((power[:-2] + power[1:-1] + power[2:]) / 3 + 1e-10)


def speech_blocks(samples: np.ndarray) -> np.ndarray:
    """int16 [n] -> bool [n // 160]: somebody speaks in these 10 ms."""
    level = levels(samples)
    if not len(level):
        return np.zeros(0, bool)
    quiet, loud = np.percentile(level, (5, 99))
    if loud < SILENCE_DB:
        return np.zeros(len(level), bool)
    if loud - quiet < MIN_RANGE_DB:
        return level > SILENCE_DB
    quiet = max(quiet, SILENCE_DB - 20)  # digital silence would pull the thresholds down
    begins = level > quiet + ON * (loud - quiet)
    speech = np.zeros(len(level), bool)
    for start, stop in _runs(level > max(quiet + OFF * (loud - quiet), SILENCE_DB)):
        speech[start:stop] = begins[start:stop].any()
    for start, stop in _runs(~speech):
        inside = start > 0 and stop < len(speech)
        speech[start:stop] = inside and stop - start < MAX_GAP * 100
    for start, stop in _runs(speech):
        speech[start:stop] = stop - start >= MIN_SPEECH * 100
    return speech


def speech_map(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """int16 [n] -> bool [num_frames]: somebody speaks during at least half of the frame."""
    blocks = speech_blocks(samples)
    per_frame = SAMPLE_RATE // FPS // BLOCK
    blocks = np.pad(blocks, (0, max(0, num_frames * per_frame - len(blocks))))
    return blocks[: num_frames * per_frame].reshape(num_frames, per_frame).mean(1) >= 0.5


def gain_db(samples: np.ndarray) -> float:
    """The gain that brings speech to `TARGET_DB`, less where a sample would clip.

    0 where nobody speaks. Levelled sound asks for (nearly) 0: it may be levelled again.

    Args:
      samples: int16 [n].

    Returns:
      dB.
    """
    blocks = speech_blocks(samples)
    if not blocks.any():
        return 0.0
    spoken = samples[: len(blocks) * BLOCK].reshape(-1, BLOCK)[blocks].astype(np.float32) / 32768
    missing = TARGET_DB - 10 * np.log10(np.mean(np.square(spoken)))
    room = 20 * np.log10(PEAK * 32767 / np.abs(samples.astype(np.int32)).max())
    gain = float(np.clip(min(missing, max(room, 0.0)), -MAX_GAIN_DB, MAX_GAIN_DB))
    return round(gain, 1)


def apply_gain(samples: np.ndarray, gain: float) -> np.ndarray:
    """int16 [n] times `gain` dB -> int16 [n]."""
    if gain == 0.0:
        return samples
    scaled = np.rint(samples.astype(np.float32) * np.float32(10 ** (gain / 20)))
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _runs(mask):
    """(start, stop) of every run of True in bool [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return edges.reshape(-1, 2)
