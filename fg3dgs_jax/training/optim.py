"""Adam over everything learnt, with a learning rate a leaf; a rate of None means frozen."""

import jax
import jax.numpy as jnp
import optax

# TalkingGaussian: Adam as in 3DGS for the Gaussians, betas (0.9, 0.99) for the motion nets. Their
# eps is as small: eyes and mouth cover 1% of the picture, a gradient of the mean over all of it
# reaches their nets as 1e-8 to 1e-13, and Adam's usual 1e-8 would leave them where they started.
GAUSSIANS = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-15)
MOTION = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-15)

# Motion parameters at the "attentive" rate (FG-3DGS IV-A): the face's networks, and the attention
# of eyes and mouth; the tri-planes have their own rate; the rest is "other".


def group_of(region: str, path: tuple[str, ...]) -> str:
    """ "tables", "attentive" or "other" for a motion parameter of a region; "statistics": fixed."""
    if path[0] == "statistics":
        return path[0]
    if path[-1] == "tables":
        return "tables"
    return "attentive" if region == "face" or "attention" in path else "other"


def init(regions):
    """Optimizer state of {region: Region}: Adam's moments for the Gaussians and for the nets."""
    return {
        "gaussians": {r: GAUSSIANS.init(v.gaussians) for r, v in regions.items()},
        "motion": {r: MOTION.init(v.motion) for r, v in regions.items()},
    }


def rate(bounds, progress):
    """Learning rate at `progress` in [0, 1], log-linear between two bounds."""
    start, end = bounds
    return start * (end / start) ** progress


def gaussian_rates(learn, region, opacities_of, progress):
    """Gaussians-shaped dict of rates, 0 where frozen."""
    names = ("means", "quats", "raw_scales", "logit_opacities", "sh_band_0", "sh_rest")
    rates = {n: rate(learn[n], progress) if learn[n] else 0.0 for n in names}
    if region not in opacities_of:
        rates["logit_opacities"] = 0.0
    return rates


def update(grads, state, regions, stage, progress):
    """One Adam step on {region: Region}; returns (regions, state). Frozen leaves do not change."""
    new_regions, new_state = {}, {"gaussians": {}, "motion": {}}
    for r, region in regions.items():
        step, new_state["gaussians"][r] = GAUSSIANS.update(
            grads[r].gaussians, state["gaussians"][r]
        )
        rates = gaussian_rates(stage.learn.gaussians, r, stage.opacities_of, progress)
        bands = jnp.full(step.sh.shape[-2], rates["sh_rest"]).at[0].set(rates["sh_band_0"])
        scales = dict(rates, sh=bands[:, None])
        gaussians = region.gaussians.replace(
            **{
                f: getattr(region.gaussians, f) - scales[f] * getattr(step, f)
                for f in region.gaussians.__dataclass_fields__
            }
        )
        step, new_state["motion"][r] = MOTION.update(grads[r].motion, state["motion"][r])

        def move(path, value, delta, r=r):
            bounds = stage.learn.motion.get(group_of(r, tuple(p.key for p in path)))
            return value if bounds is None else value - rate(bounds, progress) * delta

        motion = jax.tree_util.tree_map_with_path(move, region.motion, step)
        new_regions[r] = region._replace(gaussians=gaussians, motion=motion)
    return new_regions, new_state
