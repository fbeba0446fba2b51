"""Landmarks that lead the motion nets: ours, not the paper's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fg3dgs_jax.clip.landmarks import GUIDES, INNER_LIPS, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from fg3dgs_jax.training import batches, losses, optim
from fg3dgs_jax.training import guides as guides_lib


def guided(config):
    """{region: which rows of `data.dataset.GUIDES` its net is led by}."""
    if config.lips_in == "face":
        return {"face": slice(None)}
    lips = len(OUTER_LIPS + INNER_LIPS)
    return {"face": slice(lips, None), "mouth": slice(lips)}


def guides_loss(net, motion, rows, frames, lid_conditions):
    """`losses.guide_loss` of a region's net over several frames (a Batch of [B]), whose lids follow
    conditions of their own; both from `batches.guide_frames`.
    """
    rows = np.arange(len(GUIDES))[rows]
    lid = np.isin(np.array(GUIDES)[rows], RIGHT_EYE + LEFT_EYE)
    groups = [rows[~lid], rows[lid]]
    order = np.concatenate(groups)
    guides = frames.guides[0]  # the same in all frames: their encoding is computed once

    def one(batch, lid_conditions):
        deltas = [
            net.apply(motion, guides[group], conditions)[0].means
            for group, conditions in zip(groups, (batch.conditions, lid_conditions), strict=True)
            if len(group)
        ]
        told = batch._replace(guides=guides[order], guide_pixels=batch.guide_pixels[order])
        return losses.guide_loss(jnp.concatenate(deltas), told)

    return jnp.mean(jax.vmap(one)(frames, lid_conditions))


def learn_from_guides(key, net, motion, rows, device_clip, config):
    """A region's motion net after the steps of `config.warm_up` on landmarks alone.

    No picture is drawn, so a step costs far less than one of a stage, and the pictures then find
    lips and lids that already go where they should.

    Args:
      motion: the net's variables.
      rows: the guides that lead it, see `guides.guided`.
      config: see `warm_up` and `guides` in configs/default.py.
    """
    rule = config.warm_up
    schedule = optax.exponential_decay(rule.rate[0], rule.steps, rule.rate[1] / rule.rate[0])
    optimizer = optax.chain(optim.MOTION, optax.scale_by_learning_rate(schedule))

    def step(carry, number):
        params, state = carry
        frames = batches.guide_frames(jax.random.fold_in(key, number), device_clip, config.guides)
        grads = jax.grad(
            lambda p: guides_lib.guides_loss(net, {**motion, "params": p}, rows, *frames)
        )(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def learn(params):
        carry = (params, optimizer.init(params))
        return jax.lax.scan(step, carry, jnp.arange(rule.steps))[0][0]

    return {**motion, "params": learn(motion["params"])}
