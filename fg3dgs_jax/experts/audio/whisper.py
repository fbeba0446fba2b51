"""The Whisper (tiny.en) audio encoder: what is being said, 50 rows a second.

Row r is centred on sample 320 r. The network sees 30 s at a time; longer sound is cut into
overlapping chunks that are cross-faded, so that no row is seen from a chunk's very edge and nothing
jumps where two chunks meet. `encode_windows` instead shows it a fixed window for every 0.2 s, so
that a stream gives the same rows as a file.
"""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.media import mel

HOP = 160  # samples a mel column
SAMPLES_PER_ROW = 320
CHUNK_ROWS = 1500  # 30 s, fixed by the position table
OVERLAP_ROWS = 250  # 5 s
# Of `encode_windows`, rows: what is heard before a block, the block, what is heard after it.
PAST_ROWS, BLOCK_ROWS, AHEAD_ROWS = 150, 10, 12
_WINDOWS = 16  # encoded at once
_MEL_BINS = 80
_HEAD_SIZE = 64  # in every Whisper
_PRECISION = jax.lax.Precision.HIGHEST

_dense = functools.partial(nn.Dense, precision=_PRECISION)
_conv = functools.partial(nn.Conv, kernel_size=(3,), padding=((1, 1),), precision=_PRECISION)
_norm = functools.partial(nn.LayerNorm, epsilon=1e-5)
_gelu = functools.partial(nn.gelu, approximate=False)


class _Layer(nn.Module):
    """Pre-norm transformer layer on [rows, width]."""

    @nn.compact
    def __call__(self, x):
        rows, width = x.shape
        qkv = _dense(3 * width, name="qkv")(_norm(name="attention_norm")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(rows, 3, width // _HEAD_SIZE, _HEAD_SIZE), 1, 0)
        logits = jnp.einsum("qhd,khd->hqk", q * _HEAD_SIZE**-0.5, k, precision=_PRECISION)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), v, precision=_PRECISION)
        x = x + _dense(width, name="attention_out")(mixed.reshape(rows, width))
        hidden = _gelu(_dense(4 * width, name="mlp_in")(_norm(name="mlp_norm")(x)))
        return x + _dense(width, name="mlp_out")(hidden)


class WhisperEncoder(nn.Module):
    """Log-mel [2 n, 80] -> features [n, width], n up to 1500.

    With `taps` the outputs of these layers instead, counted from 1: [n, len(taps), width].
    """

    width: int = 384
    num_layers: int = 4
    taps: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, log_mel: jax.Array) -> jax.Array:
        """Log-mel [2 n, 80] -> features."""
        x = _gelu(_conv(self.width, name="conv1")(log_mel))
        x = _gelu(_conv(self.width, strides=2, name="conv2")(x))
        positions = self.param("positions", nn.initializers.normal(0.02), (CHUNK_ROWS, self.width))
        x = x + positions[: len(x)]
        outputs = []
        for i in range(max(self.taps, default=self.num_layers)):
            x = _Layer(name=f"layer_{i}")(x)
            outputs.append(x)
        if self.taps:
            return jnp.stack([outputs[tap - 1] for tap in self.taps], 1)
        return _norm(name="norm")(x)


def load(path: os.PathLike | str) -> dict:
    """The npz with CTranslate2's encoder keys (fp16) -> `WhisperEncoder` params in float32.

    Raises:
      ValueError: the file lacks an array of the encoder, or its heads are not 64 wide.
    """
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}

    def get(key):
        if f"encoder/{key}" not in arrays:
            raise ValueError(
                f"{path} has nothing under 'encoder/{key}'; expected a Whisper encoder with "
                "CTranslate2's keys"
            )
        return jnp.asarray(arrays[f"encoder/{key}"], jnp.float32)

    def affine(key):  # Linear [out, in] -> [in, out]; Conv1d [out, in, 3] -> [3, in, out]
        return {"kernel": get(f"{key}/weight").T, "bias": get(f"{key}/bias")}

    def norm(key):
        return {"scale": get(f"{key}/gamma"), "bias": get(f"{key}/beta")}

    params = {
        "conv1": affine("conv1"),
        "conv2": affine("conv2"),
        "positions": get("position_encodings/encodings"),
        "norm": norm("layer_norm"),
    }
    for i in range(sum(key.endswith("/self_attention/layer_norm/beta") for key in arrays)):
        params[f"layer_{i}"] = {
            "attention_norm": norm(f"layer_{i}/self_attention/layer_norm"),
            "qkv": affine(f"layer_{i}/self_attention/linear_0"),
            "attention_out": affine(f"layer_{i}/self_attention/linear_1"),
            "mlp_norm": norm(f"layer_{i}/ffn/layer_norm"),
            "mlp_in": affine(f"layer_{i}/ffn/linear_0"),
            "mlp_out": affine(f"layer_{i}/ffn/linear_1"),
        }
    width, heads = params["positions"].shape[1], int(get("num_heads"))
    if width != heads * _HEAD_SIZE:
        raise ValueError(
            f"{path} has {heads} heads for {width} channels; expected heads of {_HEAD_SIZE}"
        )
    return params


def encode(params: dict, samples: np.ndarray) -> np.ndarray:
    """16 kHz samples [n] -> float32 [ceil(n / 320), width], a row for every 20 ms of real sound."""
    samples = mel.as_float(samples)
    rows = -(-len(samples) // SAMPLES_PER_ROW)
    width = params["positions"].shape[1]
    if not rows:
        return np.zeros((0, width), np.float32)
    columns = log_mel(samples, 2 * max(rows, CHUNK_ROWS))
    total, weight = np.zeros((rows, width)), np.zeros((rows, 1))
    starts = chunk_starts(rows)
    for start in starts:
        chunk = slice(start, min(start + CHUNK_ROWS, rows))
        fade = _fade(start > 0, start < starts[-1])[: chunk.stop - start, None]
        features = np.asarray(_encode_chunk(params, columns[2 * start : 2 * (start + CHUNK_ROWS)]))
        total[chunk] += fade * features[: len(fade)]
        weight[chunk] += fade
    return (total / weight).astype(np.float32)


def encode_windows(params: dict, samples: np.ndarray, taps: tuple[int, ...]) -> np.ndarray:
    """Middle layers, each row from a fixed window of sound.

    Rows come in blocks of 0.2 s. A block is encoded with the 3 s before it and the 0.24 s after it,
    zeros outside the sound.

    Args:
      params: of `load`.
      samples: [n] at 16 kHz.
      taps: the layers, counted from 1.

    Returns:
      float32 [ceil(n / 320), len(taps), width].
    """
    samples = mel.as_float(samples)
    rows = -(-len(samples) // SAMPLES_PER_ROW)
    blocks = -(-rows // BLOCK_ROWS)
    length = PAST_ROWS + BLOCK_ROWS + AHEAD_ROWS
    total = blocks * BLOCK_ROWS + PAST_ROWS + AHEAD_ROWS
    before = PAST_ROWS * SAMPLES_PER_ROW
    padded = np.pad(samples, (before, total * SAMPLES_PER_ROW - before - len(samples)))
    decades = _decades(padded, 2 * total)
    out = [np.zeros((0, BLOCK_ROWS, len(taps), params["positions"].shape[1]), np.float32)]
    for first in range(0, blocks, _WINDOWS):
        # The last windows are filled up by repetition: one size, so one compilation.
        index = np.minimum(np.arange(first, first + _WINDOWS), blocks - 1) * 2 * BLOCK_ROWS
        windows = np.stack([_scaled(decades[i : i + 2 * length]) for i in index])
        features = np.asarray(_encode_windows(params, windows, taps))
        out.append(features[: blocks - first, PAST_ROWS : PAST_ROWS + BLOCK_ROWS])
    return np.concatenate(out).reshape(-1, *out[0].shape[2:])[:rows]


def chunk_starts(rows: int) -> list[int]:
    """First row of each chunk: overlaps of OVERLAP_ROWS or more, the last ends with the sound."""
    last = max(0, rows - CHUNK_ROWS)
    steps = -(-last // (CHUNK_ROWS - OVERLAP_ROWS))
    return [last * k // max(steps, 1) for k in range(steps + 1)]


def log_mel(samples: np.ndarray, num_columns: int) -> np.ndarray:
    """Float samples [n] -> Whisper's input float32 [num_columns, 80], 100 columns a second.

    The floor, 8 decades below the loudest band, is that of the whole sound, so that all chunks are
    scaled alike.
    """
    padded = np.pad(samples, (0, max(0, num_columns * HOP - len(samples))))[: num_columns * HOP]
    return _scaled(_decades(padded, num_columns))


def _decades(samples, num_columns):
    """Decimal logarithms of the energies in the mel bands, [num_columns, 80]."""
    power = mel.spectrum(samples, n_fft=400, hop=HOP)[:num_columns] ** 2
    bands = power @ mel.filterbank(16_000, 400, _MEL_BINS, 0.0, 8000.0).T
    return np.log10(np.maximum(bands, 1e-10))


def _scaled(decades):
    return ((np.maximum(decades, decades.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def _fade(at_start, at_end):
    """Weights [1500] of a chunk's rows: they rise from a cut edge, but not from the sound's own."""
    fade, rise = np.ones(CHUNK_ROWS), np.arange(1, OVERLAP_ROWS + 1) / (OVERLAP_ROWS + 1)
    if at_start:
        fade[:OVERLAP_ROWS] = rise
    if at_end:
        fade[-OVERLAP_ROWS:] = rise[::-1]
    return fade


@jax.jit
def _encode_chunk(params, columns):
    num_layers = sum(key.startswith("layer_") for key in params)
    encoder = WhisperEncoder(params["positions"].shape[1], num_layers)
    return encoder.apply({"params": params}, columns)


@functools.partial(jax.jit, static_argnums=2)
def _encode_windows(params, windows, taps):
    encoder = WhisperEncoder(params["positions"].shape[1], taps=taps)
    return jax.vmap(lambda columns: encoder.apply({"params": params}, columns))(windows)
