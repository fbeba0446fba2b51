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

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5  # of every normalisation inside the network
_PRECISION = jax.lax.Precision.HIGHEST

_dense = functools.partial(nn.Dense, precision=_PRECISION)
_norm = functools.partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)
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


class _TimeNorm(nn.Module):
    """GroupNorm with a group per channel: [T, C] normalised over T."""

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1:]
        centred = x - x.mean(0)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, 0) + EPSILON)
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
    def __call__(self, samples: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Standardised samples [n] -> (hidden states, logits or None)."""
        x = _FeatureExtractor(self.config, name="feature_extractor")(samples)
        x = _FeatureProjection(self.config.width, name="feature_projection")(x)
        states = _Encoder(self.config, name="encoder")(x)
        if not self.config.vocab_size:
            return tuple(states), None
        return tuple(states), _dense(self.config.vocab_size, name="lm_head")(states[-1])
