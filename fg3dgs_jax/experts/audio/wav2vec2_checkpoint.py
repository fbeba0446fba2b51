"""A wav2vec 2.0 or HuBERT file -> parameters and the sizes of the network, found in the file."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.experts.audio import wav2vec2_weights
from fg3dgs_jax.experts.audio.wav2vec2 import Config
from fg3dgs_jax.experts.audio.wav2vec2_weights import DIRECTION, config_from_json
from fg3dgs_jax.weights import variables
from fg3dgs_jax.weights.formats.pickles import CheckpointError

_HEAD_SIZE = 64  # in every published model


class Model(NamedTuple):
    """What `wav2vec2_features` runs."""

    params: dict
    config: Config


def load(path: os.PathLike | str, letters: bool) -> Model:
    """The model in transformers' `model.safetensors` or `pytorch_model.bin`, or our `.npz`.

    Its sizes are those of the `config.json` beside it if there is one, else those of its arrays,
    which tell all but strides and heads: these are then the published ones.

    Args:
      path: of the file.
      letters: with the letters' head, which must be there; else it is left out.

    Raises:
      ValueError: the file is damaged or of another network, or has no head where one is asked for.
    """
    path = pathlib.Path(path)
    entries = _json_beside(path)

    def to_params(state):
        return wav2vec2_weights.convert(state, _config(_shapes(state), entries, letters))

    params = variables.load(path, to_params)
    if not letters:
        params = {key: leaf for key, leaf in params.items() if key != "lm_head"}
    try:
        shapes = _torch_shapes(params)
    except KeyError as error:
        raise CheckpointError(f"{path} has nothing under {error}; convert it again") from None
    config = _config(shapes, entries, letters)
    expected = wav2vec2_weights.expected_shapes(config)
    if odd := [key for key, shape in shapes.items() if expected.get(key) != shape]:
        raise CheckpointError(
            f"{path} has {shapes[odd[0]]} under {odd[0]!r}; {expected.get(odd[0])} is expected by "
            "the config.json beside it: that is of another model"
        )
    return Model(params, config)


def convert(state: dict[str, np.ndarray]) -> dict:
    """Arrays under transformers' names -> params; sizes, and whether there is a head, from shapes.

    Raises:
      ValueError: a key is missing, unknown or there twice, or the arrays do not fit together.
    """
    shapes = _shapes(state)
    return wav2vec2_weights.convert(state, config_from_shapes(shapes, "lm_head.weight" in shapes))


def _shapes(state):
    return {key: array.shape for key, array in wav2vec2_weights.bare_names(state).items()}


def _json_beside(path):
    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    try:
        entries = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside} is no JSON ({error})") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{beside} is no JSON object; expected a model's config.json")
    return entries


def _config(shapes, entries, letters):
    if entries is None:
        return config_from_shapes(shapes, letters)
    if letters and "lm_head.weight" not in shapes:
        _lack_head()
    return config_from_json(entries, ctc=letters)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], letters: bool) -> Config:
    """Bare names and torch shapes of the weights -> Config, if it is like the published models.

    Strides are theirs, heads 64 wide, and the "stable" layer norm goes with a norm after every
    convolution.

    Raises:
      ValueError: an array that tells a size is missing, or the width is no multiple of 64.
    """

    def shape(key, rank):
        if len(shapes.get(key, ())) != rank:
            raise CheckpointError(
                f"the weights lack {key!r}, or it has not {rank} axes; expected a state dict of "
                "Wav2Vec2Model, HubertModel or their CTC form"
            )
        return shapes[key]

    if letters and "lm_head.weight" not in shapes:
        _lack_head()
    published = Config()
    convs = [
        shape(f"feature_extractor.conv_layers.{i}.conv.weight", 3)
        for i in range(len(published.conv_strides))
    ]
    kernels = tuple(conv[2] for conv in convs)
    if kernels != published.conv_kernels:
        raise CheckpointError(
            f"the weights have convolutions of {kernels} taps; without a config.json beside them "
            f"{published.conv_kernels} are expected"
        )
    width, inner, taps = shape(DIRECTION, 3)
    if width % _HEAD_SIZE or not inner or width % inner:
        raise CheckpointError(
            f"the weights are {width} wide in groups of {inner}; without a config.json beside them "
            f"a multiple of {_HEAD_SIZE} in equal groups is expected"
        )
    layers = {key.split(".")[2] for key in shapes if key.startswith("encoder.layers.")}
    large = "feature_extractor.conv_layers.1.layer_norm.weight" in shapes
    return Config(
        conv_widths=tuple(conv[0] for conv in convs),
        conv_bias="feature_extractor.conv_layers.0.conv.bias" in shapes,
        conv_norm="layer" if large else "group",
        width=width,
        num_layers=len(layers),
        num_heads=width // _HEAD_SIZE,
        ffn_width=shape("encoder.layers.0.feed_forward.intermediate_dense.weight", 2)[0],
        position_kernel=taps,
        position_groups=width // inner,
        pre_norm=large,
        vocab_size=shape("lm_head.weight", 2)[0] if letters else 0,
    )


def _lack_head():
    raise CheckpointError(
        "the weights have no letters' head (lm_head.weight); expected a model fine-tuned on "
        "transcripts (CTC)"
    )


def _torch_shapes(params):
    """Bare names and torch shapes of the arrays of `Wav2Vec2` params that tell its sizes."""
    shapes = {}

    def add(name, leaves):
        for ours, theirs in (("kernel", "weight"), ("scale", "weight"), ("bias", "bias")):
            if ours in leaves:
                shapes[f"{name}.{theirs}"] = leaves[ours].shape[::-1]

    for i in range(len(params["feature_extractor"])):
        conv, name = params["feature_extractor"][f"conv_{i}"], f"feature_extractor.conv_layers.{i}"
        add(f"{name}.conv", conv["conv"])
        add(f"{name}.layer_norm", conv.get("norm", {}))
    encoder = params["encoder"]
    shapes[DIRECTION] = encoder["pos_conv"]["kernel"].shape[::-1]
    for i in range(sum(key.startswith("layer_") for key in encoder)):
        up = encoder[f"layer_{i}"]["ffn"]["up"]
        add(f"encoder.layers.{i}.feed_forward.intermediate_dense", up)
    add("lm_head", params.get("lm_head", {}))
    return shapes
