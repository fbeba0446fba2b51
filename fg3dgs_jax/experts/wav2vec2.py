"""wav2vec 2.0 and HuBERT: sound -> 50 rows a second -> one window per video frame (25 fps).

Both families are one network: seven unpadded convolutions (hop 320 samples, each row sees 400), a
projection, a grouped convolution that tells positions, a transformer, and for the models fine-tuned
on transcripts a linear head with one logit per letter (CTC). "Base" models normalise over time
after the first convolution and after each transformer block; "large" ones over the channels after
every convolution and before each block. Layers, sizes and constants are those of transformers'
Wav2Vec2Model and HubertModel, the windows those of the published feature scripts of AD-NeRF's
successors (RAD-NeRF, ER-NeRF, TalkingGaussian).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import mel as mel_lib

SAMPLES_PER_ROW = 320  # 50 rows a second at 16 kHz: two per video frame
LOGIT_WINDOW = 16  # rows per video frame of letters, 320 ms
MODES = ("streaming", "chunked", "full")
_LEFT, _MIDDLE, _RIGHT = 10, 50, 10  # rows of a streamed segment: context, kept, context
_CHUNK_ROWS = 1000  # rows of a chunk in mode "chunked", 20 s
_VARIANCE_FLOOR = 1e-7  # of the sound's standardisation
_EPSILON = 1e-5  # of every normalisation inside the network
_PRECISION = jax.lax.Precision.HIGHEST

_dense = functools.partial(nn.Dense, precision=_PRECISION)
_norm = functools.partial(nn.LayerNorm, epsilon=_EPSILON, use_fast_variance=False)
_gelu = functools.partial(nn.gelu, approximate=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of one network; the defaults are those of the "base" models."""

    conv_widths: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: str = "group"  # over time after the first, or "layer": over channels after each
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn_width: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = False  # "stable layer norm"
    vocab_size: int = 0  # letters of the CTC head; 0: no head

    def __post_init__(self):
        lengths = {len(self.conv_widths), len(self.conv_kernels), len(self.conv_strides)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"conv_widths, conv_kernels, conv_strides have {len(self.conv_widths)}, "
                f"{len(self.conv_kernels)}, {len(self.conv_strides)} entries; expected as many of "
                "each, one per convolution"
            )
        if self.conv_norm not in ("group", "layer"):
            raise ValueError(f"conv_norm is {self.conv_norm!r}; expected 'group' or 'layer'")
        for name in ("num_heads", "position_groups"):
            if self.width % getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected a divisor of width {self.width}"
                )

    @property
    def hop(self) -> int:
        """Samples from one row to the next."""
        return math.prod(self.conv_strides)

    @property
    def field(self) -> int:
        """Samples that one row of the convolutions sees."""
        field, hop = 1, 1
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            field, hop = field + (kernel - 1) * hop, hop * stride
        return field

    def num_rows(self, num_samples: int) -> int:
        """Rows for so many samples: every field that fits entirely."""
        return max(0, (num_samples - self.field) // self.hop + 1)


BASE = Config()  # wav2vec2-base, hubert-base
LARGE = Config(  # wav2vec2-large-xlsr-53, hubert-large
    conv_bias=True,
    conv_norm="layer",
    width=1024,
    num_layers=24,
    num_heads=16,
    ffn_width=4096,
    pre_norm=True,
)

_JSON_SIZES = {
    "conv_bias": "conv_bias",
    "conv_norm": "feat_extract_norm",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "position_kernel": "num_conv_pos_embeddings",
    "position_groups": "num_conv_pos_embedding_groups",
    "pre_norm": "do_stable_layer_norm",
}
_JSON_LISTS = {
    "conv_widths": "conv_dim",
    "conv_kernels": "conv_kernel",
    "conv_strides": "conv_stride",
}
_JSON_SUPPORTED = {  # what this network does; a file without the entry means the same
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": _EPSILON,
    "add_adapter": False,
    "adapter_attn_dim": None,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
}


def config_from_json(entries: Mapping[str, Any], ctc: bool) -> Config:
    """The entries of a model's config.json -> Config, with the letters' head if `ctc`.

    Raises:
      ValueError: an entry is missing, or asks for what this network has not.
    """
    kind = entries.get("model_type")
    if kind not in ("wav2vec2", "hubert"):
        raise ValueError(f"config.json has model_type {kind!r}; expected 'wav2vec2' or 'hubert'")
    for name, expected in _JSON_SUPPORTED.items():
        if entries.get(name, expected) != expected:
            raise ValueError(
                f"config.json has {name} {entries[name]!r}; only {expected!r} is supported"
            )
    wanted = [*_JSON_SIZES.values(), *_JSON_LISTS.values()] + ["vocab_size"] * ctc
    missing = [name for name in wanted if name not in entries]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; expected a whole config.json")
    sizes = {ours: entries[theirs] for ours, theirs in _JSON_SIZES.items()}
    lists = {ours: tuple(entries[theirs]) for ours, theirs in _JSON_LISTS.items()}
    return Config(**sizes, **lists, vocab_size=entries["vocab_size"] if ctc else 0)


class _TimeNorm(nn.Module):
    """GroupNorm with a group per channel: [T, C] normalised over T."""

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1:]
        centred = x - x.mean(0)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, 0) + _EPSILON)
        scale = self.param("scale", nn.initializers.ones, channels)
        return normal * scale + self.param("bias", nn.initializers.zeros, channels)


class _ConvLayer(nn.Module):
    config: Config
    index: int

    @nn.compact
    def __call__(self, x):
        config, i = self.config, self.index
        conv = nn.Conv(
            config.conv_widths[i],
            (config.conv_kernels[i],),
            config.conv_strides[i],
            "VALID",
            use_bias=config.conv_bias,
            precision=_PRECISION,
            name="conv",
        )
        x = conv(x)
        if config.conv_norm == "layer":
            x = _norm(name="norm")(x)
        elif i == 0:
            x = _TimeNorm(name="norm")(x)
        return _gelu(x)


class _FeatureExtractor(nn.Module):
    """Standardised samples [n] -> [rows, conv_widths[-1]]."""

    config: Config

    @nn.compact
    def __call__(self, samples):
        x = samples[:, None]
        for i in range(len(self.config.conv_widths)):
            x = _ConvLayer(self.config, i, name=f"conv_{i}")(x)
        return x


class _FeatureProjection(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return _dense(self.width, name="proj")(_norm(name="norm")(x))


class _Attention(nn.Module):
    """Every row of [T, width] sees every other."""

    num_heads: int

    @nn.compact
    def __call__(self, x):
        rows, width = x.shape
        size = width // self.num_heads
        q, k, v = (_dense(width, name=n)(x).reshape(rows, self.num_heads, size) for n in "qkv")
        logits = jnp.einsum("qhd,khd->hqk", q * size**-0.5, k, precision=_PRECISION)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), v, precision=_PRECISION)
        return _dense(width, name="out")(mixed.reshape(rows, width))


class _FeedForward(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return _dense(x.shape[-1], name="down")(_gelu(_dense(self.hidden, name="up")(x)))


class _Layer(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x):
        attention = _Attention(self.config.num_heads, name="attn")
        feed_forward = _FeedForward(self.config.ffn_width, name="ffn")
        norm, final_norm = _norm(name="norm"), _norm(name="final_norm")
        if self.config.pre_norm:
            x = x + attention(norm(x))
            return x + feed_forward(final_norm(x))
        x = norm(x + attention(x))
        return final_norm(x + feed_forward(x))


class _Encoder(nn.Module):
    """[T, width] -> the num_layers + 1 hidden states [T, width], the last one normalised."""

    config: Config

    @nn.compact
    def __call__(self, x):
        config = self.config
        half = config.position_kernel // 2
        position = nn.Conv(
            config.width,
            (config.position_kernel,),
            padding=((half, half),),
            feature_group_count=config.position_groups,
            precision=_PRECISION,
            name="pos_conv",
        )
        norm = _norm(name="norm")
        x = x + _gelu(position(x)[: len(x)])  # an even kernel gives one row too many at the end
        states = [x if config.pre_norm else norm(x)]
        for i in range(config.num_layers):
            states.append(_Layer(config, name=f"layer_{i}")(states[-1]))
        if config.pre_norm:
            states[-1] = norm(states[-1])
        return states


class Wav2Vec2(nn.Module):
    """Standardised samples [n] -> (hidden states, num_layers + 1 of [rows, width]; CTC logits).

    The hidden states are what enters the first layer, then what leaves each. The last one is
    transformers' `last_hidden_state`, so normalised in large models too, where transformers 5 lists
    it in `hidden_states` without that. Logits are [rows, vocab_size], or None without a head.
    """

    config: Config

    @nn.compact
    def __call__(self, samples):
        x = _FeatureExtractor(self.config, name="feature_extractor")(samples)
        x = _FeatureProjection(self.config.width, name="feature_projection")(x)
        states = _Encoder(self.config, name="encoder")(x)
        if not self.config.vocab_size:
            return tuple(states), None
        return tuple(states), _dense(self.config.vocab_size, name="lm_head")(states[-1])


_POSITION = "encoder.pos_conv_embed.conv"
_GAIN = f"{_POSITION}.parametrizations.weight.original0"
_DIRECTION = f"{_POSITION}.parametrizations.weight.original1"
_OLD_SPELLING = {f"{_POSITION}.weight_g": _GAIN, f"{_POSITION}.weight_v": _DIRECTION}
_MODULES = {  # of a transformer layer: theirs -> (ours, whether it is a linear map)
    "attention.q_proj": (("attn", "q"), True),
    "attention.k_proj": (("attn", "k"), True),
    "attention.v_proj": (("attn", "v"), True),
    "attention.out_proj": (("attn", "out"), True),
    "layer_norm": (("norm",), False),
    "feed_forward.intermediate_dense": (("ffn", "up"), True),
    "feed_forward.output_dense": (("ffn", "down"), True),
    "final_layer_norm": (("final_norm",), False),
}


def convert(state: Mapping[str, np.ndarray], config: Config) -> dict:
    """Arrays under transformers' names -> `Wav2Vec2` params, float32.

    With or without the prefix `wav2vec2.` or `hubert.`, both spellings of the weight norm. Two
    things may be in the file or not, for they are not used: `masked_spec_embed` (training only)
    and, if `config` has no head, `lm_head`.

    Raises:
      ValueError: a key is missing, unknown or there twice, or an array has another shape.
    """
    arrays = {}
    for key, array in state.items():
        bare = key.removeprefix("wav2vec2.").removeprefix("hubert.")
        bare = _OLD_SPELLING.get(bare, bare)
        if bare in arrays:
            raise ValueError(f"the weights have {bare!r} twice, the second time under {key!r}")
        arrays[bare] = np.asarray(array)
    shapes = expected_shapes(config)
    unused = {"masked_spec_embed"}
    if not config.vocab_size:
        unused |= {"lm_head.weight", "lm_head.bias"}
    _refuse("lack", [key for key in shapes if key not in arrays])
    _refuse("have unknown", [key for key in arrays if key not in shapes and key not in unused])
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ValueError(
                f"the weights have {arrays[key].shape} under {key!r}; expected {shape}: the config "
                "is that of another model"
            )
    return _to_params(arrays, config)


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """What `convert` reads: transformers' bare names and torch shapes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(key, *weight, bias=True):
        shapes[f"{key}.weight"] = weight
        if bias:
            shapes[f"{key}.bias"] = weight[:1]

    width, channels = config.width, 1
    for i, (out, kernel) in enumerate(zip(config.conv_widths, config.conv_kernels, strict=True)):
        key = f"feature_extractor.conv_layers.{i}"
        add(f"{key}.conv", out, channels, kernel, bias=config.conv_bias)
        if config.conv_norm == "layer" or i == 0:
            add(f"{key}.layer_norm", out)
        channels = out
    add("feature_projection.layer_norm", channels)
    add("feature_projection.projection", width, channels)
    shapes[f"{_POSITION}.bias"] = (width,)
    shapes[_GAIN] = (1, 1, config.position_kernel)
    shapes[_DIRECTION] = (width, width // config.position_groups, config.position_kernel)
    add("encoder.layer_norm", width)
    for i in range(config.num_layers):
        for theirs, (ours, linear) in _MODULES.items():
            rows = config.ffn_width if ours[-1] == "up" else width
            columns = config.ffn_width if ours[-1] == "down" else width
            add(f"encoder.layers.{i}.{theirs}", *((rows, columns) if linear else (rows,)))
    if config.vocab_size:
        add("lm_head", config.vocab_size, width)
    return shapes


def _refuse(what, keys):
    if keys:
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise ValueError(
            f"the weights {what} {', '.join(map(repr, keys[:5]))}{more}; expected a state dict of "
            "Wav2Vec2Model, HubertModel or their CTC form, and the config of that model"
        )


def _to_params(arrays, config):
    def get(key):
        return jnp.asarray(arrays[key], jnp.float32)

    def affine(key):  # [out, in] -> [in, out]; [out, in, taps] -> [taps, in, out]
        params = {"kernel": get(f"{key}.weight").T}
        return params | ({"bias": get(f"{key}.bias")} if f"{key}.bias" in arrays else {})

    def norm(key):
        return {"scale": get(f"{key}.weight"), "bias": get(f"{key}.bias")}

    extractor = {}
    for i in range(len(config.conv_widths)):
        key = f"feature_extractor.conv_layers.{i}"
        extractor[f"conv_{i}"] = {"conv": affine(f"{key}.conv")}
        if f"{key}.layer_norm.weight" in arrays:
            extractor[f"conv_{i}"]["norm"] = norm(f"{key}.layer_norm")
    direction, gain = np.float64(arrays[_DIRECTION]), np.float64(arrays[_GAIN])
    # Weight norm here has a length per tap, over all inputs and outputs of that tap.
    kernel = gain * direction / np.sqrt((direction**2).sum((0, 1), keepdims=True))
    encoder = {
        "pos_conv": {
            "kernel": jnp.asarray(kernel.T, jnp.float32),
            "bias": get(f"{_POSITION}.bias"),
        },
        "norm": norm("encoder.layer_norm"),
    }
    for i in range(config.num_layers):
        layer: dict[str, Any] = {}
        for theirs, (ours, linear) in _MODULES.items():
            key = f"encoder.layers.{i}.{theirs}"
            place = layer.setdefault(ours[0], {}) if len(ours) > 1 else layer
            place[ours[-1]] = affine(key) if linear else norm(key)
        encoder[f"layer_{i}"] = layer
    params = {
        "feature_extractor": extractor,
        "feature_projection": {
            "norm": norm("feature_projection.layer_norm"),
            "proj": affine("feature_projection.projection"),
        },
        "encoder": encoder,
    }
    return params | ({"lm_head": affine("lm_head")} if config.vocab_size else {})


def standardise(samples) -> np.ndarray:
    """int16 or float samples [n] -> float32 [n] of mean 0 and variance 1 (silence stays 0)."""
    samples = mel_lib.as_float(samples)
    if not len(samples):
        return samples
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    return (centred / np.sqrt(np.mean(centred**2) + _VARIANCE_FLOOR)).astype(np.float32)


def encode(params, config: Config, samples, *, mode: str, output: str | int) -> np.ndarray:
    """16 kHz mono samples [n] -> float32 [rows, D], a row for every hop (20 ms) of sound.

    Args:
      params: from `convert`.
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
    samples = mel_lib.as_float(samples)
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
    wanted = "'logits', " if config.vocab_size else ""
    raise ValueError(
        f"output is {output!r}; this model gives {wanted}'hidden' or the hidden states 0 to "
        f"{config.num_layers}"
    )


@functools.partial(jax.jit, static_argnames=("config", "output"))
def _run(params, samples, config, output):
    states, logits = Wav2Vec2(config).apply({"params": params}, samples)
    if output == "logits":
        return logits
    return states[-1 if output == "hidden" else output]


def logit_windows(rows, num_frames: int | None = None) -> np.ndarray:
    """50 Hz rows [M, D] -> float32 [N, 16, D], row i holding the rows 2i - 8 to 2i + 7.

    Zeros outside the sound. N is `num_frames`, or as published M // 2 + 1.
    """
    rows = np.asarray(rows, np.float32)
    num_frames = len(rows) // 2 + 1 if num_frames is None else num_frames
    index = 2 * np.arange(num_frames)[:, None] + np.arange(LOGIT_WINDOW) - LOGIT_WINDOW // 2
    return _pick(rows, index)


def pair_windows(rows, num_frames: int | None = None) -> np.ndarray:
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
    params, config: Config, samples, *, num_frames: int | None = None, mode: str = "streaming"
) -> np.ndarray:
    """16 kHz mono samples [n] -> CTC logits per video frame, float32 [N, 16, vocab_size].

    N is `num_frames`, or as published rows // 2 + 1, which may be one more than the video has.
    """
    _require_video_rate(config)
    return logit_windows(encode(params, config, samples, mode=mode, output="logits"), num_frames)


def hidden_features(
    params,
    config: Config,
    samples,
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
