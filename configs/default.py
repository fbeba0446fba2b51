"""Every default. A config file copies this and changes what is particular to it.

Lengths in metres, image sizes in px, angles in degrees, times in steps. A stage is a row of the
table `stages`; the loop and the step are the same for all of them.
"""

import ml_collections

from fg3dgs_jax.models.motion import default_model_config
from fg3dgs_jax.types import REGIONS

EXPRESSION = (
    "gaze_x",
    "gaze_y",
    "AU01",
    "AU04",
    "AU05",
    "AU06",
    "AU07",
    "AU45",
)  # AU45 (blink) last


def schedule(start, end=None):
    """A learning rate that falls log-linearly from `start` to `end` over the stage."""
    return (start, start if end is None else end)


def part(bounds, begin, end):
    """The rates of a stage that takes `begin` to `end`, of 0 to 1, of a fall along `bounds`."""
    start, stop = bounds
    return tuple(start * (stop / start) ** share for share in (begin, end))


def all_alike(value):
    """The same value for each region."""
    return dict.fromkeys(REGIONS, value)


def halving(start):
    """TalkingGaussian's fall of each region's motion rates over its iterations 3,000 to 50,000,
    `start` being that of iteration 0: halved by `half`, a tenth at `tenth`, a jump between the two.
    """

    def fall(half, tenth):
        shares = ((i, 0.5 ** (i / half)) for i in (3000, half))
        later = ((i, 0.1 ** (i / tenth)) for i in (half, 50_000))
        return tuple(((i - 3000) / 47_000, start * share) for i, share in (*shares, *later))

    usual = fall(40_000, 50_000)
    return dict(face=usual, eyes=usual, mouth=fall(39_000, 49_000))


def get_config() -> ml_collections.ConfigDict:
    gaussians = dict(
        means=None,  # set by the stage: one fall over both, see below
        sh_band_0=schedule(2.5e-3),
        sh_rest=schedule(1.25e-4),
        logit_opacities=schedule(0.05),
        raw_scales=schedule(3e-3),
        quats=schedule(1e-3),
    )
    motion = dict(  # spec: FG-3DGS section IV-A; tables and falls are TalkingGaussian's
        tables=halving(5e-3),
        attentive=halving(1e-4),  # the face's networks; attention of eyes and mouth
        other=halving(1e-5),  # every other MLP
    )
    # After each dispatch of `steps_per_dispatch` steps. Floors of opacities run from their first to
    # their second value over the stage: 0.05 + 0.25 x iteration / 49,000, a mouth's / 45,000, which
    # are also the iterations at which it stops (TalkingGaussian).
    density = dict(
        start=500,
        stop=all_alike(1.0),  # share of the stage
        grad_threshold=dict(face=5e-4, eyes=2e-4, mouth=2e-4),  # of |dL/d means2d| in NDC units
        split_scale=0.0015,  # larger Gaussians are split, smaller ones cloned
        max_scale=0.02,
        min_opacity=dict(face=(0.05, 0.0653), eyes=(0.05, 0.0653), mouth=(0.05, 0.0667)),
    )
    late_density = dict(
        density,
        start=0,
        stop=dict(face=0.9787, eyes=0.9787, mouth=0.8936),
        min_opacity=dict(face=(0.0653, 0.3051), eyes=(0.0653, 0.3051), mouth=(0.0667, 0.3278)),
    )
    # 3DGS's 1.6e-4 x a scene extent of 0.2 m, a hundredth of it after 45,000 iterations.
    early = dict(gaussians, means=schedule(3.2e-5, 2.354e-5))  # the first 3,000
    late = dict(gaussians, means=schedule(2.354e-5, 1.918e-7))  # the 47,000 after them
    no_losses = dict.fromkeys(
        ("l1", "d_ssim", "detail", "guides", "alpha", "motion", "attention", "lpips", "sync"), 0.0
    )
    colors = dict.fromkeys(gaussians) | dict(
        sh_band_0=schedule(2.5e-3), sh_rest=schedule(1.25e-4), logit_opacities=schedule(0.05)
    )
    # Every `every`-th step takes a frame whose score lies in [low, high], both running from their
    # first to their second value over the stage; scores run from 0 (shut, eyes open) to 1.
    static_frames = dict(
        face=dict(score="opening", every=15, low=(0.04, 0.10), high=(0.36, 0.42)),
        eyes=dict(score="blink", every=1, low=(0.0, 0.0), high=(0.15, 0.15)),
        mouth=dict(score="opening", every=1, low=(0.8, 0.8), high=(1.0, 1.0)),
    )
    motion_frames = dict(
        face=dict(score="blink", every=15, low=(-0.15, 0.85), high=(0.30, 1.0)),
        eyes=dict(score="blink", every=7, low=(0.0, 0.0), high=(0.1, 1.0)),
        mouth=dict(score="opening", every=7, low=(0.9, 0.0), high=(1.0, 1.0)),
    )
    config = ml_collections.ConfigDict(
        dict(
            name="default",
            seed=0,
            moves=True,  # False: the static avatar, same schedule, motion networks off
            data=dict(
                path="",
                max_side=0,  # px; larger pictures are shrunk (0: none)
                seconds=0.0,  # the most informative so many of the clip (0: all of it)
                audio_extractor="mel",
                expression=EXPRESSION,
                resident="auto",  # pictures on the device: "True", "False": read as needed
            ),
            model=default_model_config(),
            layers=REGIONS,  # what has no layer of its own belongs to the face's
            lips_in="face",  # or "mouth": whose layer the lips are part of
            sync_expert="",  # file of eq. (16)'s expert; "": the first that is found
            sh_degree=2,
            regions=dict(
                face=dict(num=2000, capacity=8192, max_capacity=65_536, dilate=0),
                eyes=dict(num=2000, capacity=4096, max_capacity=65_536, dilate=2),
                mouth=dict(num=5000, capacity=8192, max_capacity=65_536, dilate=0),
            ),
            key_color=(
                0.0,
                1.0,
                0.0,
            ),  # behind a layer in its own stages; (): another at every step
            batch=1,  # frames a step and device
            steps_per_dispatch=100,
            # The face's net on landmarks alone, before the stages; 0 steps: not at all.
            warm_up=dict(steps=0, rate=schedule(1e-3, 1e-4)),
            # There, and in the stages where `guides` weighs: frames a step, noise in deviations
            # (the expression's for lids only).
            guides=dict(frames=8, audio_noise=2.0, expression_noise=0.5),
            log=dict(every=200, samples_every=2000, checkpoint_every=2000, keep=2),
            stages=dict(
                static=dict(
                    steps=3000,
                    fused=False,
                    moving=False,
                    window=1,  # consecutive frames a step, where layers are fused
                    learn=dict(gaussians=early, motion=dict.fromkeys(motion)),
                    keeps_moments=False,  # Adam's, of the stage before
                    opacities_of=REGIONS,
                    motion_of=REGIONS,  # whose nets learn
                    frames=static_frames,
                    audio_noise=0.0,
                    au_jitter=0.0,
                    density=density,
                    losses=dict(no_losses, l1=1.0, d_ssim=0.2),
                    hair_every=1,
                    lpips=dict(start=1.0, side=32, count=8),
                ),
                motion=dict(
                    steps=47_000,
                    fused=False,
                    moving=True,
                    window=1,
                    learn=dict(gaussians=late, motion=motion),
                    keeps_moments=False,
                    opacities_of=REGIONS,
                    motion_of=REGIONS,
                    frames=motion_frames,
                    audio_noise=0.0,  # standard deviations of the features
                    au_jitter=0.05,  # of AU45, either way, as ER-NeRF
                    density=late_density,
                    losses=dict(
                        no_losses,
                        l1=1.0,
                        d_ssim=0.2,
                        alpha=1e-3,
                        motion=1e-5,
                        attention=1e-4,
                        lpips=0.2,
                    ),
                    hair_every=7,
                    lpips=dict(start=0.94, side=64, count=8),
                ),
                fusion=dict(
                    steps=5000,
                    fused=True,
                    moving=True,
                    window=1,
                    learn=dict(gaussians=colors, motion=dict.fromkeys(motion)),
                    keeps_moments=False,
                    opacities_of=("face",),  # colours of all three move
                    motion_of=(),
                    frames=None,
                    audio_noise=0.0,
                    au_jitter=0.0,
                    density=None,
                    losses=dict(no_losses, l1=1.0, d_ssim=0.2),
                    hair_every=1,
                    lpips=dict(start=1.0, side=38, count=64),
                ),
                # The fusion's second half, with the lip-sync expert of eq. (16).
                alignment=dict(
                    steps=5000,
                    fused=True,
                    moving=True,
                    window=5,
                    sync_paints=True,  # eq. (16) reaches the colours as well as the motion
                    learn=dict(
                        gaussians=colors,
                        motion=dict(
                            tables=schedule(5e-4), attentive=schedule(1e-4), other=schedule(1e-5)
                        ),
                    ),
                    keeps_moments=True,
                    opacities_of=(),
                    motion_of=("mouth",),
                    frames=None,
                    audio_noise=0.0,
                    au_jitter=0.0,
                    density=None,
                    losses=dict(no_losses, l1=1.0, d_ssim=0.2, lpips=0.5, sync=0.03),
                    hair_every=1,
                    lpips=dict(start=0.0, side=38, count=64),
                ),
            ),
        )
    )
    # Rows that were written with the same dict would share it: a change of one would be a change of
    # both.
    return ml_collections.ConfigDict(_apart(config.to_dict()))


def _apart(value):
    """A copy in which no dict stands twice."""
    return {k: _apart(v) for k, v in value.items()} if isinstance(value, dict) else value
