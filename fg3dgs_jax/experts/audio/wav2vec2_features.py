"""Sound -> rows of `wav2vec2` -> windows per frame, as the published feature scripts do."""

import functools

import jax
import numpy as np

from fg3dgs_jax.experts.audio.wav2vec2 import Config, Wav2Vec2
from fg3dgs_jax.media import mel

SAMPLES_PER_ROW = 320  # 50 rows a second at 16 kHz: two per video frame
LOGIT_WINDOW = 16  # rows per video frame of letters, 320 ms
MODES = ("streaming", "chunked", "full")
_LEFT, _MIDDLE, _RIGHT = 10, 50, 10  # rows of a streamed segment: context, kept, context
_CHUNK_ROWS = 1000  # rows of a chunk in mode "chunked", 20 s
_VARIANCE_FLOOR = 1e-7  # of the sound's standardisation


def standardise(samples: np.ndarray) -> np.ndarray:
    """int16 or float samples [n] -> float32 [n] of mean 0 and variance 1 (silence stays 0)."""
    samples = mel.as_float(samples)
    if not len(samples):
        return samples
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    return (centred / np.sqrt(np.mean(centred**2) + _VARIANCE_FLOOR)).astype(np.float32)


def encode(
    params: dict, config: Config, samples: np.ndarray, *, mode: str, output: str | int
) -> np.ndarray:
    """16 kHz mono samples [n] -> float32 [rows, D], a row for every hop (20 ms) of sound.

    Args:
      params: from `convert`.
      config: the network's sizes.
      samples: int16, or float in [-1, 1].
      mode: how a long sound is cut, which changes the numbers.
        "streaming": segments of 70 rows that overlap by 20 and are standardised each by itself, as
          the published wav2vec2 features are; the first begins in 10 rows of silence.
        "chunked": the whole is standardised and cut into pieces of 1000 rows, as the published
          HuBERT features are.
        "full": all at once. Memory grows with the square of the length: some minutes at most.
      output: "logits" (D = vocab_size), "hidden" (the last hidden state, D = width), or the number
        of a hidden state, 0 to num_layers.

    Returns:
      `config.num_rows(n)` rows in every mode; none for less than 400 samples.
    """
    samples = mel.as_float(samples)
    width = _output_width(config, output)
    segments = _segments(config, len(samples), mode)
    if mode == "streaming":
        samples = np.pad(samples, (_LEFT * config.hop, 0))
    else:
        samples = standardise(samples)
    rows = [np.zeros((0, width), np.float32)]
    for start, stop, first, last in segments:
        segment = samples[start:stop]
        segment = standardise(segment) if mode == "streaming" else segment
        rows.append(np.asarray(_run(params, segment, config, output))[first:last])
    return np.concatenate(rows)


def _segments(config, num_samples, mode):
    """[(first sample, last sample + 1, first row kept, last row kept + 1)].

    Samples count from the silence put in front in mode "streaming", which is 10 rows.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    hop, total = config.hop, config.num_rows(num_samples)
    if not total:
        return []
    if mode == "full":
        return [(0, num_samples, 0, total)]
    if mode == "chunked":
        length = (_CHUNK_ROWS - 1) * hop + config.field
        starts = range(0, total * hop, _CHUNK_ROWS * hop)
        return [(start, min(start + length, num_samples), 0, _CHUNK_ROWS) for start in starts]
    padded, length = num_samples + _LEFT * hop, _LEFT + _MIDDLE + _RIGHT
    hops = -(-padded // hop)
    whole = max(0, (hops - length) // _MIDDLE + 1)
    kept = [
        (k * _MIDDLE * hop, (k * _MIDDLE + length) * hop, _LEFT, _LEFT + _MIDDLE)
        for k in range(whole)
    ]
    start = whole * _MIDDLE * hop
    # What is left keeps its rows to the end.
    rest = config.num_rows(padded - start)
    return kept + ([(start, padded, _LEFT, rest)] if rest > _LEFT else [])


def _output_width(config, output):
    if output == "logits" and config.vocab_size:
        return config.vocab_size
    if output == "hidden" or (isinstance(output, int) and 0 <= output <= config.num_layers):
        return config.width
    letters = "'logits', " if config.vocab_size else ""
    raise ValueError(
        f"output is {output!r}; this model gives {letters}'hidden' or the hidden states 0 to "
        f"{config.num_layers}"
    )


@functools.partial(jax.jit, static_argnames=("config", "output"))
def _run(params, samples, config, output):
    states, logits = Wav2Vec2(config).apply({"params": params}, samples)
    if output == "logits":
        return logits
    return states[-1 if output == "hidden" else output]


def logit_windows(rows: np.ndarray, num_frames: int | None = None) -> np.ndarray:
    """50 Hz rows [M, D] -> float32 [N, 16, D], row i holding the rows 2i - 8 to 2i + 7.

    Zeros outside the sound. N is `num_frames`, or as published M // 2 + 1.
    """
    rows = np.asarray(rows, np.float32)
    num_frames = len(rows) // 2 + 1 if num_frames is None else num_frames
    index = 2 * np.arange(num_frames)[:, None] + np.arange(LOGIT_WINDOW) - LOGIT_WINDOW // 2
    return _pick(rows, index)


def pair_windows(rows: np.ndarray, num_frames: int | None = None) -> np.ndarray:
    """50 Hz rows [M, D] -> float32 [N, 2, D], row i holding the rows 2i and 2i + 1.

    Zeros after the sound. N is `num_frames`, or as published M // 2: an odd last row is dropped.
    """
    rows = np.asarray(rows, np.float32)
    num_frames = len(rows) // 2 if num_frames is None else num_frames
    return _pick(rows, 2 * np.arange(num_frames)[:, None] + np.arange(2))


def _pick(rows, index):
    inside = (index >= 0) & (index < len(rows))
    padded = np.concatenate([rows, np.zeros((1, rows.shape[1]), np.float32)])
    return padded[np.where(inside, index, len(rows))]


def letter_features(
    params: dict,
    config: Config,
    samples: np.ndarray,
    *,
    num_frames: int | None = None,
    mode: str = "streaming",
) -> np.ndarray:
    """16 kHz mono samples [n] -> CTC logits per video frame, float32 [N, 16, vocab_size].

    N is `num_frames`, or as published rows // 2 + 1, which may be one more than the video has.
    """
    _require_video_rate(config)
    return logit_windows(encode(params, config, samples, mode=mode, output="logits"), num_frames)


def hidden_features(
    params: dict,
    config: Config,
    samples: np.ndarray,
    *,
    num_frames: int | None = None,
    mode: str = "chunked",
    layer: int | None = None,
) -> np.ndarray:
    """16 kHz mono samples [n] -> hidden states per video frame, float32 [N, 2, width].

    The last hidden state, or that of number `layer`. N is `num_frames`, or as published rows // 2.
    """
    _require_video_rate(config)
    output = "hidden" if layer is None else layer
    return pair_windows(encode(params, config, samples, mode=mode, output=output), num_frames)


def _require_video_rate(config):
    if config.hop != SAMPLES_PER_ROW:
        raise ValueError(
            f"the convolutions' strides multiply to {config.hop}; expected {SAMPLES_PER_ROW}, two "
            "rows per video frame at 25 fps and 16 kHz"
        )
