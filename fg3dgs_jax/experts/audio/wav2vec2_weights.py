"""Published wav2vec 2.0 and HuBERT weights, under transformers' names -> `wav2vec2.Wav2Vec2`."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.experts.audio.wav2vec2 import EPSILON, Config

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
    "layer_norm_eps": EPSILON,
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
    required = [*_JSON_SIZES.values(), *_JSON_LISTS.values()] + ["vocab_size"] * ctc
    missing = [name for name in required if name not in entries]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; expected a whole config.json")
    sizes: dict[str, Any] = {ours: entries[theirs] for ours, theirs in _JSON_SIZES.items()}
    lists: dict[str, Any] = {ours: tuple(entries[theirs]) for ours, theirs in _JSON_LISTS.items()}
    return Config(**sizes, **lists, vocab_size=entries["vocab_size"] if ctc else 0)


_POSITION = "encoder.pos_conv_embed.conv"
_GAIN = f"{_POSITION}.parametrizations.weight.original0"
DIRECTION = f"{_POSITION}.parametrizations.weight.original1"
_OLD_SPELLING = {f"{_POSITION}.weight_g": _GAIN, f"{_POSITION}.weight_v": DIRECTION}
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
    arrays = bare_names(state)
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


def bare_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under the names of a model without a head, in transformers' newest spelling."""
    arrays = {}
    for key, array in state.items():
        bare = key.removeprefix("wav2vec2.").removeprefix("hubert.")
        bare = _OLD_SPELLING.get(bare, bare)
        if bare in arrays:
            raise ValueError(f"the weights have {bare!r} twice, the second time under {key!r}")
        arrays[bare] = np.asarray(array)
    return arrays


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
    shapes[DIRECTION] = (width, width // config.position_groups, config.position_kernel)
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
    direction, gain = np.float64(arrays[DIRECTION]), np.float64(arrays[_GAIN])
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
