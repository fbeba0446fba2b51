"""Adam over everything learnt, with a learning rate a leaf; a rate of None means frozen."""

import functools
import itertools

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
    """Learning rate at `progress` in [0, 1]: log-linear from `bounds` (first, last), or along more
    than two knots (progress, rate), of which two at one place are a jump.
    """
    if not isinstance(bounds[0], tuple | list):
        bounds = ((0.0, bounds[0]), (1.0, bounds[1]))
    value = bounds[0][1]
    for (begin, start), (end, stop) in itertools.pairwise(bounds):
        if end > begin:
            along = start * (stop / start) ** ((progress - begin) / (end - begin))
            value = jnp.where(progress >= begin, along, value)
    return value


def gaussian_rates(learn, region, opacities_of, progress):
    """Gaussians-shaped dict of rates, 0 where frozen."""
    names = ("means", "quats", "raw_scales", "logit_opacities", "sh_band_0", "sh_rest")
    rates = {n: rate(learn[n], progress) if learn[n] else 0.0 for n in names}
    if region not in opacities_of:
        rates["logit_opacities"] = 0.0
    return rates


def motion_rate(stage, region, path):
    """Bounds of the learning rate of a motion net's leaf (of all regions, or a dict of each one's),
    None where the stage freezes it.
    """
    if region not in stage.motion_of:
        return None
    bounds = stage.learn.motion.get(group_of(region, keys_of(path)))
    return bounds[region] if hasattr(bounds, "keys") else bounds


def learnt(regions, stage):
    """{region: Region} of bools: whether the stage moves a leaf."""
    out = {}
    for r, region in regions.items():
        rates, fields = stage.learn.gaussians, region.gaussians.__dataclass_fields__
        moves = {f: bool(rates[f]) for f in fields if f != "sh"}
        moves["sh"] = bool(rates.sh_band_0 or rates.sh_rest)
        moves["logit_opacities"] &= r in stage.opacities_of
        motion = jax.tree_util.tree_map_with_path(
            lambda path, _, r=r: motion_rate(stage, r, path) is not None, region.motion
        )
        out[r] = region._replace(gaussians=region.gaussians.replace(**moves), motion=motion)
    return out


def freeze(regions, stage):
    """The same regions, without gradient to what the stage does not move: nothing that leads only
    there is computed.
    """
    stop = lambda moves, x: x if moves else jax.lax.stop_gradient(x)  # noqa: E731
    return jax.tree.map(stop, learnt(regions, stage), regions)


def keys_of(path) -> tuple[str, ...]:
    """The names along a path of `tree_map_with_path`."""
    return tuple(p.key for p in path)


def _adam(optimizer, grads, state, moves):
    """One Adam update; the moments of frozen leaves stay as they are, and where all are frozen so
    does the count that takes out the bias of their start.
    """
    step, new = optimizer.update(grads, state)
    if not any(jax.tree.leaves(moves)):
        return step, state
    keep = functools.partial(jax.tree.map, lambda m, a, b: a if m else b, moves)
    return step, new._replace(mu=keep(new.mu, state.mu), nu=keep(new.nu, state.nu))


def update(grads, state, regions, stage, progress):
    """One Adam step on {region: Region}; returns (regions, state). Frozen leaves do not change."""
    new_regions, new_state = {}, {"gaussians": {}, "motion": {}}
    moves = learnt(regions, stage)
    for r, region in regions.items():
        step, new_state["gaussians"][r] = _adam(
            GAUSSIANS, grads[r].gaussians, state["gaussians"][r], moves[r].gaussians
        )
        rates = gaussian_rates(stage.learn.gaussians, r, stage.opacities_of, progress)
        bands = jnp.full(step.sh.shape[-2], rates["sh_rest"]).at[0].set(rates["sh_band_0"])
        scales = dict(rates, sh=bands[:, None])
        gaussians = region.gaussians.replace(
            **{
                f: getattr(region.gaussians, f) - scales[f] * getattr(step, f)
                for f in region.gaussians.__dataclass_fields__
                if getattr(moves[r].gaussians, f)
            }
        )
        step, new_state["motion"][r] = _adam(
            MOTION, grads[r].motion, state["motion"][r], moves[r].motion
        )

        def move(path, value, delta, r=r):
            bounds = motion_rate(stage, r, path)
            return value if bounds is None else value - rate(bounds, progress) * delta

        motion = jax.tree_util.tree_map_with_path(move, region.motion, step)
        new_regions[r] = region._replace(gaussians=gaussians, motion=motion)
    return new_regions, new_state
