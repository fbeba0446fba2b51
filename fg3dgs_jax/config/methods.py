"""Named settings: a method, a size, and any ablations, by their names separated by commas.

| axis | names |
|---|---|
| method | `paper` (the seed's, to the letter), `tuned` (what we found better; hears `lips`), |
|  | `talkinggaussian` (the rival of the paper's tables) |
| size | `full`, `small` (two CPU cores, minutes), `quick` (small, on the most telling 10 s) |
| ablations | `ABLATIONS`; `lambda1=0.3` (2, 3); `audio=hubert` |

`tuned,small,no_fam` is one. Without a name for it the method is `paper` and the size `full`. Names
of before stay: `cpu` is `tuned,small`, `quick` alone `tuned,quick`, `static` `tuned,small,static`.
"""

from collections.abc import Callable, Iterable

from fg3dgs_jax.config.defaults import (
    COLORS,
    EXPRESSION,
    Config,
    Motion,
    Rates,
    gaussian_rates,
    halving,
    motion_rates,
)
from fg3dgs_jax.config.settings import Schedule, constant, fall, part

STEPS = {
    "small": {"static": 800, "motion": 9000, "fusion": 3200, "alignment": 400},
    "quick": {"static": 400, "motion": 2500, "fusion": 500, "alignment": 150},
}
METHODS = ("paper", "tuned", "talkinggaussian")
SIZES = ("full", *STEPS)
ALIASES = {"cpu": ("tuned", "small"), "static": ("tuned", "small", "static")}
LAMBDAS = {"lambda1": "d_ssim", "lambda2": "lpips", "lambda3": "sync"}


def get_config(variant: str = "", name: str = "") -> Config:
    """The config that a variant names.

    Args:
      variant: names separated by commas, see above.
      name: of the subject; the run's name begins with it.

    Raises:
      ValueError: an unknown name, or two methods or sizes.
    """
    names = [v for v in variant.split(",") if v]
    config = Config(name="_".join([name, *(v.replace("=", "_") for v in names)]).strip("_"))
    config.name = config.name or "paper"
    given = [n for v in names for n in ALIASES.get(v, (v,))]
    method = _one_of(METHODS, given) or ("tuned" if "quick" in given else "paper")
    size = _one_of(SIZES, given) or "full"
    if method == "talkinggaussian":
        talkinggaussian(config)
    if size != "full":
        smaller(config, STEPS[size])
        config.data.max_side = 256
        config.data.seconds = 10.0 if size == "quick" else None
    if method == "tuned":
        tuned(config)
    if method == "talkinggaussian":
        no_hrpa(config)
    ablate(config, [n for n in given if n not in (*METHODS, *SIZES)])
    if method == "tuned" and not any(n.startswith("audio=") for n in given):
        config.data.audio_extractor = "lips"
    if method == "tuned" and config.data.audio_extractor == "lips":
        hears_lips(config)
    return config


def _one_of(axis: tuple[str, ...], names: list[str]) -> str | None:
    chosen = sorted({n for n in names if n in axis})
    if len(chosen) > 1:
        raise ValueError(f"variant names {' and '.join(chosen)}; expected one of {', '.join(axis)}")
    return chosen[0] if chosen else None


def smaller(config: Config, steps: dict[str, int]) -> None:
    """Fewer steps and Gaussians, and rates that are raised to fit: for two CPU cores.

    Args:
      config: is changed.
      steps: of each stage.
    """
    for name, count in steps.items():
        getattr(config.stages, name).steps = count
    for region, num, capacity in (("face", 4000, 8192), ("eyes", 400, 640), ("mouth", 800, 1024)):
        population = getattr(config.gaussians, region)
        population.num, population.capacity, population.max_capacity = num, capacity, None
    config.gaussians.eyes.dilate = 1
    static, motion = config.stages.static, config.stages.motion
    static.rates[".*/gaussians/means"] = fall(1e-4, 2e-6)
    motion.rates = gaussian_rates(fall(1e-4, 2e-6)) | motion_rates(
        tables=fall(5e-3, 5e-4), attentive=fall(5e-4, 5e-5), other=fall(1e-3, 1e-4)
    )
    for stage, stop, floor in ((static, 1.0, (0.02, 0.02)), (motion, 0.7, (0.02, 0.10))):
        for rule in (stage.density or {}).values():
            rule.start, rule.stop, rule.min_opacity = 200, stop, floor


def tuned(config: Config) -> None:
    """What we found better than the paper's setting; docs/method.md says what each is worth.

    Args:
      config: is changed; its steps are those that it is to have.
    """
    static, motion = config.stages.static, config.stages.motion
    fusion, alignment = config.stages.fusion, config.stages.alignment
    config.key_color = None
    config.model.mouth.follows_lips = True
    # The lips are a hundredth of the picture: landmarks lead them before pictures can.
    config.warm_up.steps = 3000
    motion.losses.detail, motion.losses.guides = 0.2, 10.0
    motion.noise.audio = 2.0
    motion.noise.blink = 0.0  # MediaPipe's blinks are steadier than that
    static.losses.lpips = motion.losses.lpips = 0.0  # kept for the fusion stage
    fusion.losses.lpips, fusion.patches.start = 0.5, 0.25
    # In the paper only colours and the face's opacities. But each layer was made from a mask of its
    # own, and here they first meet. A rate falls once over both stages.
    end = fusion.steps / max(fusion.steps + alignment.steps, 1)  # of the fusion
    fusion.rates = {"face/gaussians/logit_opacities": constant(0.05), **_late_rates(0.0, end)}
    alignment.rates = _late_rates(end, 1.0)
    # An expert as small as ours would be pleased by paint without the lips moving, and with the
    # paper's weight by lips that are not where they should be.
    alignment.sync_paints = False
    alignment.losses.sync, alignment.losses.detail = 0.002, 0.2


def talkinggaussian(config: Config) -> None:
    """TalkingGaussian (ECCV 2024), on the same data, masks, first Gaussians and losses as ours.

    Two branches: the eyes belong to the face, whose net is that of eqs. (5)-(8), and one MLP moves
    the inside of the mouth. Its weight decay is left out, and its LPIPS runs as the paper's does.
    After this it has no alignment: `no_hrpa`.

    Args:
      config: is changed.
    """
    config.regions = tuple(r for r in config.regions if r != "eyes")
    config.data.expression = tuple(name for name in EXPRESSION if name.startswith("AU"))
    config.model.face.expression_gate_offset = 0.0
    config.model.mouth.motion, config.model.mouth.last_layer_scale = Motion.CONCAT, 1.0
    config.gaussians.mouth.num, config.gaussians.mouth.capacity = 10_000, 16_384
    motion = config.stages.motion
    motion.noise.blink = 0.0
    rates = {k: v for k, v in motion.rates.items() if "/gaussians/" in k}
    for region, half, tenth in (("face", 40_000, 50_000), ("mouth", 39_000, 49_000)):
        tables, pooling, other = (halving(r, half, tenth) for r in (5e-3, 2.5e-3, 5e-4))
        rates[f"{region}/motion/.*/audio/attention/.*"] = pooling
        rates |= motion_rates(tables, other, other, region)
    motion.rates = rates


def hears_lips(config: Config) -> None:
    """The tuned method where the sound is the lips that a prior hears in it.

    Args:
      config: of the tuned method, is changed.
    """
    # A prior has taken out most of what a short clip could be learnt by heart from.
    config.stages.motion.noise.audio = 0.3
    config.guides.audio_noise = 1.0  # of sound and landmarks together, see `Guides`


def _late_rates(begin: float, end: float) -> Rates:
    """Rates of everything but opacities over a part of fusion and alignment together."""
    return {
        **COLORS,
        ".*/gaussians/logit_opacities": None,
        ".*/gaussians/means": part(fall(5e-6, 5e-7), begin, end),
        ".*/gaussians/raw_scales": part(fall(1e-3, 1e-4), begin, end),
        ".*/gaussians/quats": part(fall(5e-4, 5e-5), begin, end),
        **motion_rates(
            tables=part(fall(5e-4, 2e-4), begin, end),
            attentive=part(fall(2e-4, 1e-4), begin, end),
            other=part(fall(1e-4, 5e-5), begin, end),
        ),
    }


def ablate(config: Config, names: Iterable[str]) -> None:
    """Applies names of `ABLATIONS`, `lambda1=0.3`, `audio=hubert` to a config.

    Raises:
      ValueError: an unknown one.
    """
    for text in names:
        name, _, value = text.partition("=")
        if text in ABLATIONS:
            ABLATIONS[text](config)
        elif name in LAMBDAS and _is_weight(value):
            for _, stage in config.stages.items():
                if getattr(stage.losses, LAMBDAS[name]):
                    setattr(stage.losses, LAMBDAS[name], float(value))
        elif name == "audio" and value:
            config.data.audio_extractor = value
        else:
            raise ValueError(
                f"variant is {text!r}; expected a method ({', '.join(METHODS)}), a size "
                f"({', '.join(SIZES)}), one of {', '.join(ABLATIONS)}, lambda1=X (or 2, 3) or "
                "audio=NAME"
            )


def no_fad(config: Config) -> None:
    """Without frequency-aware disentanglement: eyes in the face's layer, as TalkingGaussian."""
    _fold_into_face(config, "eyes")


def no_fam(config: Config) -> None:
    """Without frequency-aware modelling: eqs. (10)-(12) give way to a concatenation MLP."""
    config.model.eyes.motion = config.model.mouth.motion = Motion.CONCAT


def single(config: Config) -> None:
    """Neither: one set of Gaussians as large as the three together, moved by one MLP."""
    _fold_into_face(config, "eyes")
    _fold_into_face(config, "mouth")
    config.model.face.motion = Motion.CONCAT


def no_hrpa(config: Config) -> None:
    """Without high-frequency-refined alignment: the fusion takes its steps.

    It also takes its LPIPS and, where one fall of a rate runs through both stages, all of it.
    """
    fusion, alignment = config.stages.fusion, config.stages.alignment
    if not alignment.steps:
        return
    fusion.rates = {k: _joined(v, alignment.rates.get(k)) for k, v in fusion.rates.items()}
    fusion.losses.lpips = alignment.losses.lpips
    fusion.patches.start *= fusion.steps / (fusion.steps + alignment.steps)
    fusion.steps += alignment.steps
    alignment.steps = 0


def _joined(early: Schedule | None, late: Schedule | None) -> Schedule | None:
    if early is None or late is None or early.knots[-1][1] != late.knots[0][1]:
        return early
    return fall(early.knots[0][1], late.knots[-1][1])


def no_expert(config: Config) -> None:
    """The alignment stage without its expert: what the expert itself is worth."""
    config.stages.alignment.losses.sync = 0.0


def offset_full(config: Config) -> None:
    """Every layer is turned and scaled as well as moved (Fig. 6)."""
    config.model.eyes.turns_and_scales = config.model.mouth.turns_and_scales = True


def mouth_lips(config: Config) -> None:
    """The lips belong to the mouth's layer, which reaches a little under the face's."""
    config.lips_in = "mouth"
    config.model.mouth.follows_lips = False
    mouth = config.gaussians.mouth
    mouth.dilate = 1
    mouth.num, mouth.capacity = 2 * mouth.num, 2 * mouth.capacity
    mouth.max_capacity = mouth.max_capacity and 2 * mouth.max_capacity


def static(config: Config) -> None:
    """The static avatar: the same schedule, the motion nets off, so nothing to align."""
    config.moves = False
    no_hrpa(config)


ABLATIONS: dict[str, Callable[[Config], None]] = {
    f.__name__: f
    for f in (no_fad, no_fam, single, no_hrpa, no_expert, offset_full, mouth_lips, static)
}


def _fold_into_face(config: Config, region: str) -> None:
    config.regions = tuple(r for r in config.regions if r != region)
    face, other = config.gaussians.face, getattr(config.gaussians, region)
    face.num += other.num
    face.capacity += other.capacity
    if face.max_capacity is not None and other.max_capacity is not None:
        face.max_capacity += other.max_capacity


def _is_weight(text: str) -> bool:
    try:
        return float(text) >= 0.0
    except ValueError:
        return False
