"""Variants of a config: the paper's ablations (Tables III-V, Fig. 6) and settings of one value.

`obama.py:cpu,no_fam` or `obama.py:cpu,lambda1=0.3,audio=hubert`: any of them, in any order.
"""

import ml_collections

LAMBDAS = {"lambda1": "d_ssim", "lambda2": "lpips", "lambda3": "sync"}


def no_fad(config):
    """Without frequency-aware disentanglement: eyes in the face's layer, as TalkingGaussian."""
    _fold_into_face(config, "eyes")


def no_fam(config):
    """Without frequency-aware modelling: eqs. (10)-(12) give way to a concatenation MLP."""
    config.model.eyes.motion = config.model.mouth.motion = "concat"


def single(config):
    """Neither: one set of Gaussians as large as the three together, moved by one MLP."""
    _fold_into_face(config, "eyes")
    _fold_into_face(config, "mouth")
    config.model.face.motion = "concat"


def no_hrpa(config):
    """Without high-frequency-refined alignment: the fusion takes its steps, with LPIPS and, where
    one fall of a rate runs through both, all of it.
    """
    fusion, alignment = config.stages.fusion, config.stages.alignment
    if not alignment.steps:
        return
    for kind, rates in alignment.learn.items():
        for name, late in rates.items():
            early = fusion.learn[kind][name]
            if early and late and early[-1] == late[0]:
                fusion.learn[kind][name] = (early[0], late[-1])
    fusion.losses.lpips = alignment.losses.lpips
    fusion.lpips.start *= fusion.steps / (fusion.steps + alignment.steps)
    fusion.steps += alignment.steps
    alignment.steps = 0


def no_expert(config):
    """The alignment stage without its expert: what the expert itself is worth."""
    config.stages.alignment.losses.sync = 0.0


def offset_full(config):
    """Every layer is turned and scaled as well as moved (Fig. 6)."""
    config.model.eyes.num_outputs = config.model.mouth.num_outputs = 10


def mouth_lips(config):
    """The lips belong to the mouth's layer, which reaches a little under the face's."""
    config.lips_in = "mouth"
    config.model.mouth.follows_lips = False
    config.regions.mouth.dilate = 1
    config.regions.mouth.num *= 2
    config.regions.mouth.capacity *= 2
    config.regions.mouth.max_capacity *= 2


NAMED = {f.__name__: f for f in (no_fad, no_fam, single, no_hrpa, no_expert)}
NAMED |= {f.__name__: f for f in (offset_full, mouth_lips)}


def apply(config: ml_collections.ConfigDict, variants) -> None:
    """Changes `config` as the variants say: names of `NAMED`, `lambda1=0.3`, `audio=hubert`.

    Raises:
      ValueError: an unknown one.
    """
    for variant in variants:
        name, _, value = variant.partition("=")
        if variant in NAMED:
            NAMED[variant](config)
        elif name in LAMBDAS and _is_number(value):
            for row in config.stages.values():
                if row.losses[LAMBDAS[name]]:
                    row.losses[LAMBDAS[name]] = float(value)
        elif name == "audio" and value:
            config.data.audio_extractor = value
        else:
            raise ValueError(
                f"variant is {variant!r}; expected one of the config's sizes, "
                f"{', '.join(NAMED)}, lambda1=X (or 2, 3) or audio=NAME"
            )


def _fold_into_face(config, region):
    config.layers = tuple(r for r in config.layers if r != region)
    face, other = config.regions.face, config.regions[region]
    for size in ("num", "capacity", "max_capacity"):
        face[size] += other[size]


def _is_number(text):
    try:
        return float(text) >= 0.0
    except ValueError:
        return False
