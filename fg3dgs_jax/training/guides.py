"""Landmarks that lead the motion nets: ours, not the paper's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fg3dgs_jax.clip.landmarks import GUIDES, INNER_LIPS, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from fg3dgs_jax.config import Config
from fg3dgs_jax.training import batches, losses, rates
from fg3dgs_jax.types import Array, Batch, Conditions


def guided(config: Config) -> dict[str, slice]:
    """{region: the rows of `clip.landmarks.GUIDES` that lead its net}."""
    if config.lips_in == "face":
        return {"face": slice(None)}
    lips = len(OUTER_LIPS + INNER_LIPS)
    return {"face": slice(lips, None), "mouth": slice(lips)}


def guides_loss(
    net: nn.Module, motion: Any, guides: slice, frames: Batch, lid_conditions: Conditions
) -> Array:
    """Mean of `losses.guide_loss` over several frames, for one region's net.

    Args:
      net: the region's.
      motion: its variables.
      guides: the guides that lead it, see `guided`.
      frames: of [B], from `batches.guide_frames`.
      lid_conditions: of [B], which the lids follow instead of the frames' own.
    """
    rows = np.arange(len(GUIDES))[guides]
    lid = np.isin(np.array(GUIDES)[rows], RIGHT_EYE + LEFT_EYE)
    groups = [rows[~lid], rows[lid]]
    order = np.concatenate(groups)
    means = frames.guides[0]  # the same in all frames: their encoding is computed once

    def one(batch, lid_conditions):
        deltas = [
            net.apply(motion, means[group], conditions)[0].means
            for group, conditions in zip(groups, (batch.conditions, lid_conditions), strict=True)
            if len(group)
        ]
        ordered = batch._replace(guides=means[order], guide_pixels=batch.guide_pixels[order])
        return losses.guide_loss(jnp.concatenate(deltas), ordered)

    return jnp.mean(jax.vmap(one)(frames, lid_conditions))


def learn_from_guides(
    key: Array,
    net: nn.Module,
    motion: Any,
    guides: slice,
    clip: batches.DeviceClip,
    config: Config,
) -> Any:
    """A region's motion net after the steps of `config.warm_up` on landmarks alone.

    No picture is drawn, so a step costs far less than one of a stage, and the pictures then find
    lips and lids that already go where they should.

    Args:
      key: consumed.
      net: the region's.
      motion: its variables.
      guides: the guides that lead it, see `guided`.
      clip: the clip on the device.
      config: its `warm_up` and `guides` are read.
    """
    rule = config.warm_up
    (_, start), (_, stop) = rule.rate.knots
    schedule = optax.exponential_decay(start, rule.steps, stop / start)
    optimizer = optax.chain(rates.MOTION, optax.scale_by_learning_rate(schedule))

    def step(carry, number):
        params, state = carry
        frames = batches.guide_frames(jax.random.fold_in(key, number), clip, config.guides)
        grads = jax.grad(lambda p: guides_loss(net, {**motion, "params": p}, guides, *frames))(
            params
        )
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def learn(params):
        carry = (params, optimizer.init(params))
        return jax.lax.scan(step, carry, jnp.arange(rule.steps))[0][0]

    return {**motion, "params": learn(motion["params"])}
