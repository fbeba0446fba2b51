"""Every default, once: the paper's setting at full size.

Lengths in metres, image sizes in px, times in steps, shares of a stage in 0 to 1. What the tuned
method and the smaller sizes change stands in `methods.py`.
"""

import dataclasses
import enum
from collections.abc import Iterator

from fg3dgs_jax.config.settings import Schedule, Settings, constant, fall
from fg3dgs_jax.types import REGIONS

Range = tuple[float, float]  # first and last value; the share of the stage done goes along it
Rates = dict[str, Schedule | None]  # path pattern of parameters -> their rate, None: frozen

EXPRESSION = ("gaze_x", "gaze_y", "AU01", "AU04", "AU05", "AU06", "AU07", "AU45")


class Resident(enum.StrEnum):
    """Where a clip's pictures lie while it is learnt from."""

    AUTO = "auto"  # on the device where they take less than half of its free memory
    DEVICE = "device"
    HOST = "host"  # in the processed folder, read as they are needed


class Motion(enum.StrEnum):
    """How a region's net turns place and conditions into motion."""

    GATED = "gated"  # eqs. (6)-(8) for the face, (10)-(12) for eyes and mouth
    CONCAT = "concat"  # one MLP of everything side by side: the ablation without FAM


class GateFrom(enum.StrEnum):
    """What the gate of eq. (10) is computed from."""

    SPATIAL = "spatial"  # one gate a Gaussian
    CONDITION = "condition"  # one gate a frame: the equation to the letter


class Draws(enum.StrEnum):
    """What a stage draws in each step."""

    LAYERS = "layers"  # each region alone, over the key colour, on a frame of its own
    FRAME = "frame"  # all regions over the real background (eq. (14))


@dataclasses.dataclass(unsafe_hash=True)
class Data(Settings):
    """What is learnt from."""

    path: str = ""  # processed folder, or the .fg3dgs file that it was packed into
    made_by: str | None = None  # the command that makes it, to name where it is missing
    max_side: int | None = None  # px: larger pictures are shrunk; None: they stay
    seconds: float | None = None  # the most informative so many seconds of the clip; None: all
    audio_extractor: str = "mel"  # audio_NAME.npy of the folder
    audio_window: tuple[int, ...] | None = None  # (W, D) of its rows; training fills it in
    audio_digest: str | None = None  # of all of them; training fills it in
    expression: tuple[str, ...] = EXPRESSION  # channels; the last one, the blink, goes unchanged
    resident: Resident = Resident.AUTO


@dataclasses.dataclass(unsafe_hash=True)
class Encoding(Settings):
    """H_3 of eqs. (7) and (9): grids on three planes."""

    base_resolution: float = 64.0  # cells a side of the coarsest level
    desired_resolution: float = 57.6  # of the finest
    levels: int = 12
    bound: float = 0.15  # metres: the cube [-bound, bound]^3 is encoded
    log2_table_size: int = 17


@dataclasses.dataclass(unsafe_hash=True)
class AudioEncoder(Settings):
    """tau_a of eq. (5)."""

    dim: int = 32
    widths: tuple[int, ...] = (32, 32, 64, 64)


@dataclasses.dataclass(unsafe_hash=True)
class ExpressionEncoder(Settings):
    """tau_e of eq. (5)."""

    hidden: int = 16


@dataclasses.dataclass(unsafe_hash=True)
class FaceMotion(Settings):
    """Low-frequency motion, eqs. (6)-(8)."""

    motion: Motion = Motion.GATED
    encoding: Encoding = dataclasses.field(default_factory=lambda: Encoding(16.0, 38.4))
    audio_gate_width: int = 32
    expression_gate_width: int = 16
    expression_gate_offset: float = 0.3  # ours: opens the gates at the start
    widths: tuple[int, ...] = (64, 64)
    last_layer_scale: float = 1.0


@dataclasses.dataclass(unsafe_hash=True)
class HighFrequencyMotion(Settings):
    """Motion of eyes or mouth, eqs. (9)-(12)."""

    motion: Motion = Motion.GATED
    encoding: Encoding = dataclasses.field(default_factory=Encoding)
    gate_from: GateFrom = GateFrom.SPATIAL
    d_model: int = 64
    heads: int = 2
    ffn_width: int = 128
    gate_width: int = 16
    motion_width: int = 32
    last_layer_scale: float = 0.1
    turns_and_scales: bool = False  # as well as moves (Fig. 6)
    axis_gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    follows_lips: bool = False  # mouth only, ours: also sees how the face's net moves the lips


@dataclasses.dataclass(unsafe_hash=True)
class Model(Settings):
    """The motion nets."""

    audio: AudioEncoder = dataclasses.field(default_factory=AudioEncoder)
    expression: ExpressionEncoder = dataclasses.field(default_factory=ExpressionEncoder)
    face: FaceMotion = dataclasses.field(default_factory=FaceMotion)
    eyes: HighFrequencyMotion = dataclasses.field(default_factory=HighFrequencyMotion)
    # The inside of a mouth moves mostly up and down.
    mouth: HighFrequencyMotion = dataclasses.field(
        default_factory=lambda: HighFrequencyMotion(axis_gain=(0.2, 1.0, 0.2))
    )


@dataclasses.dataclass(unsafe_hash=True)
class Population(Settings):
    """One region's Gaussians, and its mask."""

    num: int = 2000  # at the start
    capacity: int = 8192  # slots at the start; a GPU begins with more (`training/density.py`)
    max_capacity: int | None = 65_536  # slots grow up to this; None: they stay
    dilate: int = 0  # px by which the region's mask is grown


@dataclasses.dataclass(unsafe_hash=True)
class Populations(Settings):
    """How many Gaussians each region has."""

    face: Population = dataclasses.field(default_factory=Population)
    eyes: Population = dataclasses.field(
        default_factory=lambda: Population(capacity=4096, dilate=2)
    )
    mouth: Population = dataclasses.field(default_factory=lambda: Population(num=5000))


@dataclasses.dataclass(unsafe_hash=True)
class WarmUp(Settings):
    """The face's net on landmarks alone, before the stages; ours."""

    steps: int = 0  # 0: not at all
    rate: Schedule = dataclasses.field(default_factory=lambda: fall(1e-3, 1e-4))


@dataclasses.dataclass(unsafe_hash=True)
class Guides(Settings):
    """Landmarks that lead the nets, in the warm-up and where the loss `guides` weighs; ours."""

    frames: int = 8  # a step
    # Standard deviations of the features. Features `lips` move by that many of what sounds of the
    # clip lie apart, and the landmarks with them: `models/lip_map.py`.
    audio_noise: float = 2.0
    expression_noise: float = 0.5  # standard deviations of the channels, for lids only


@dataclasses.dataclass(unsafe_hash=True)
class Log(Settings):
    """What a run leaves to look at; steps over all stages."""

    every: int = 200
    samples_every: int = 2000
    checkpoint_every: int = 2000
    keep: int = 2  # newest checkpoints


@dataclasses.dataclass(unsafe_hash=True)
class Losses(Settings):
    """Weight of each term of `training/losses.py:TERMS`; 0: not computed."""

    l1: float = 0.0  # eqs. (3), (13), (15)
    d_ssim: float = 0.0  # lambda_1 of eqs. (3), (13), (15)
    detail: float = 0.0  # ours: L1 in the boxes of lips and eyes once more
    alpha: float = 0.0  # a layer fills its mask and leaves the rest clear
    motion: float = 0.0  # small motion of the face
    attention: float = 0.0  # expressions leave the lips alone, both conditions the hair
    lpips: float = 0.0  # lambda_2 of eq. (15), from `Patches.start` on
    guides: float = 0.0  # ours: landmarks lead the nets
    sync: float = 0.0  # lambda_3 of eq. (16)


@dataclasses.dataclass(unsafe_hash=True)
class Patches(Settings):
    """Where LPIPS looks: random patches of a picture."""

    start: float = 0.0  # share of the stage before which it is not computed
    side: int = 38  # px
    count: int = 64


@dataclasses.dataclass(unsafe_hash=True)
class Sampling(Settings):
    """On every `every`-th step, frames whose score lies between `low` and `high`.

    Scores run from 0 (mouth shut, eyes open) to 1.
    """

    score: str = "opening"  # or "blink"
    every: int = 1
    low: Range = (0.0, 0.0)
    high: Range = (1.0, 1.0)


@dataclasses.dataclass(unsafe_hash=True)
class Density(Settings):
    """Density control of one region, after each dispatch of `steps_per_dispatch` steps."""

    start: int = 500  # step of the stage
    stop: float = 1.0  # share of the stage
    grad_threshold: float = 2e-4  # of |dL/d means2d| in NDC units: above it, clone or split
    split_scale: float = 0.0015  # metres: larger Gaussians are split, smaller ones cloned
    max_scale: float = 0.02  # metres: larger ones are pruned
    min_opacity: Range = (0.05, 0.0653)  # fainter ones are pruned


@dataclasses.dataclass(unsafe_hash=True)
class Noise(Settings):
    """Noise on what drives the nets."""

    audio: float = 0.0  # standard deviations of the features
    blink: float = 0.0  # of AU45, either way, as ER-NeRF


@dataclasses.dataclass(unsafe_hash=True)
class Stage(Settings):
    """What is drawn, what is learnt, what is measured, and for how long."""

    steps: int
    draws: Draws
    moves: bool  # the motion nets take part
    rates: Rates  # the first pattern that fits a parameter's path counts
    losses: Losses
    window: int = 1  # consecutive frames a step
    sampling: dict[str, Sampling] | None = None  # by region; None: every frame alike
    density: dict[str, Density] | None = None  # by region; None: none
    noise: Noise = dataclasses.field(default_factory=Noise)
    patches: Patches = dataclasses.field(default_factory=Patches)
    hair_every: int = 1  # the face is shown with its hair in every so many-th step
    sync_paints: bool = True  # eq. (16) reaches the colours as well as the motion
    continues_adam: bool = False  # Adam goes on with the moments of the stage before


# 3DGS: the rates of the colours and opacities. The pattern of a colour's constant band stands
# before that of all others.
COLORS: Rates = {
    ".*/gaussians/sh/band_0": constant(2.5e-3),
    ".*/gaussians/sh/rest": constant(1.25e-4),
}
SHAPES: Rates = {
    ".*/gaussians/logit_opacities": constant(0.05),
    ".*/gaussians/raw_scales": constant(3e-3),
    ".*/gaussians/quats": constant(1e-3),
}
FROZEN: Rates = {".*": None}
MOTION_RATES = (5e-3, 1e-4, 1e-5)  # of tables, attentive networks and others at iteration 0


def gaussian_rates(means: Schedule) -> Rates:
    """Rates of everything that a Gaussian has."""
    return {".*/gaussians/means": means, **COLORS, **SHAPES}


def motion_rates(
    tables: Schedule, attentive: Schedule, other: Schedule, region: str = ".*"
) -> Rates:
    """Rates of a region's motion net (FG-3DGS IV-A), of all regions by default.

    Args:
      tables: of the grids on three planes.
      attentive: of the face's networks, and of the attention of eyes and mouth.
      other: of every other MLP.
      region: a pattern of the regions meant.
    """
    return {
        f"{region}/motion/statistics/.*": None,
        f"{region}/motion/.*/tables": tables,
        **({"face/motion/.*": attentive} if region in (".*", "face") else {}),
        f"{region}/motion/.*/attention/.*": attentive,
        f"{region}/motion/.*": other,
    }


def halving(start: float, half: int = 40_000, tenth: int = 50_000) -> Schedule:
    """TalkingGaussian's fall of the motion rates over its iterations 3,000 to 50,000.

    Halved by iteration `half`, a tenth at `tenth`, a jump between the two.

    Args:
      start: the rate of iteration 0.
      half: iteration at which the rate has halved.
      tenth: iteration at which it would be a tenth.
    """
    shares = ((i, 0.5 ** (i / half)) for i in (3000, half))
    later = ((i, 0.1 ** (i / tenth)) for i in (half, 50_000))
    knots = (((i - 3000) / 47_000, start * share) for i, share in (*shares, *later))
    return Schedule(tuple(knots))


def _talking_gaussian_rates() -> Rates:
    """The mouth's nets fall earlier than the others'."""
    tables, attentive, other = (halving(r, 39_000, 49_000) for r in MOTION_RATES)
    mouth = motion_rates(tables, attentive, other, "mouth")
    tables, attentive, other = (halving(r) for r in MOTION_RATES)
    return mouth | motion_rates(tables, attentive, other)


# Floors of opacities: 0.05 + 0.25 x iteration / 49,000, a mouth's / 45,000, which are also the
# iterations at which density control stops (TalkingGaussian).
def _density(start: int, stops: Range, floors: tuple[Range, Range]) -> dict[str, Density]:
    """Rules of all regions; of `stops` and `floors` the second is the mouth's."""
    (stop, mouth_stop), (floor, mouth_floor) = stops, floors
    return {
        "face": Density(start, stop, 5e-4, min_opacity=floor),
        "eyes": Density(start, stop, min_opacity=floor),
        "mouth": Density(start, mouth_stop, min_opacity=mouth_floor),
    }


def _static() -> Stage:
    """Eqs. (1)-(4): each region's Gaussians, without motion."""
    return Stage(
        steps=3000,
        draws=Draws.LAYERS,
        moves=False,
        # 3DGS's 1.6e-4 x a scene extent of 0.2 m, a hundredth of it after 45,000 iterations.
        rates=gaussian_rates(fall(3.2e-5, 2.354e-5)) | FROZEN,
        losses=Losses(l1=1.0, d_ssim=0.2),
        sampling={
            "face": Sampling("opening", 15, (0.04, 0.10), (0.36, 0.42)),
            "eyes": Sampling("blink", 1, (0.0, 0.0), (0.15, 0.15)),
            "mouth": Sampling("opening", 1, (0.8, 0.8), (1.0, 1.0)),
        },
        density=_density(500, (1.0, 1.0), ((0.05, 0.0653), (0.05, 0.0667))),
        patches=Patches(1.0, 32, 8),
    )


def _motion() -> Stage:
    """Eqs. (5)-(13): motion nets and Gaussians together."""
    return Stage(
        steps=47_000,
        draws=Draws.LAYERS,
        moves=True,
        rates=gaussian_rates(fall(2.354e-5, 1.918e-7)) | _talking_gaussian_rates(),
        losses=Losses(l1=1.0, d_ssim=0.2, alpha=1e-3, motion=1e-5, attention=1e-4, lpips=0.2),
        sampling={
            "face": Sampling("blink", 15, (-0.15, 0.85), (0.30, 1.0)),
            "eyes": Sampling("blink", 7, (0.0, 0.0), (0.1, 1.0)),
            "mouth": Sampling("opening", 7, (0.9, 0.0), (1.0, 1.0)),
        },
        density=_density(0, (0.9787, 0.8936), ((0.0653, 0.3051), (0.0667, 0.3278))),
        noise=Noise(blink=0.05),
        patches=Patches(0.94, 64, 8),
        hair_every=7,
    )


def _fusion() -> Stage:
    """Eqs. (14) and (15): all layers over the real background; colours and the face's opacity."""
    return Stage(
        steps=5000,
        draws=Draws.FRAME,
        moves=True,
        rates={**COLORS, "face/gaussians/logit_opacities": constant(0.05), **FROZEN},
        losses=Losses(l1=1.0, d_ssim=0.2),
        patches=Patches(1.0, 38, 64),
    )


def _alignment() -> Stage:
    """Eq. (16): the fusion's second half, with the lip-sync expert and the mouth's net."""
    mouth = motion_rates(constant(5e-4), constant(1e-4), constant(1e-5), "mouth")
    return Stage(
        steps=5000,
        draws=Draws.FRAME,
        moves=True,
        rates={**COLORS, **mouth, **FROZEN},
        losses=Losses(l1=1.0, d_ssim=0.2, lpips=0.5, sync=0.03),
        window=5,
        continues_adam=True,
    )


@dataclasses.dataclass(unsafe_hash=True)
class Stages(Settings):
    """The stages in the order in which they run; one without steps is left out."""

    static: Stage = dataclasses.field(default_factory=_static)
    motion: Stage = dataclasses.field(default_factory=_motion)
    fusion: Stage = dataclasses.field(default_factory=_fusion)
    alignment: Stage = dataclasses.field(default_factory=_alignment)

    def items(self) -> Iterator[tuple[str, Stage]]:
        """Yields (name, stage) of all four."""
        return ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))


@dataclasses.dataclass(unsafe_hash=True)
class Config(Settings):
    """All that decides what a run computes, and what it leaves to look at."""

    name: str = "paper"
    seed: int = 0
    moves: bool = True  # False: the static avatar, same schedule, motion networks off
    data: Data = dataclasses.field(default_factory=Data)
    model: Model = dataclasses.field(default_factory=Model)
    regions: tuple[str, ...] = REGIONS  # with a layer of their own; the face's has the rest
    lips_in: str = "face"  # or "mouth": whose layer the lips are part of
    gaussians: Populations = dataclasses.field(default_factory=Populations)
    sh_degree: int = 2
    key_color: tuple[float, ...] | None = (0.0, 1.0, 0.0)  # behind a layer; None: another each step
    sync_expert: str | None = None  # file of eq. (16)'s expert; None: the first that is found
    batch: int = 1  # frames a step and device
    steps_per_dispatch: int = 100
    warm_up: WarmUp = dataclasses.field(default_factory=WarmUp)
    guides: Guides = dataclasses.field(default_factory=Guides)
    log: Log = dataclasses.field(default_factory=Log)
    stages: Stages = dataclasses.field(default_factory=Stages)
