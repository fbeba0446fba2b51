"""The lip prior learns one person's way to move the lips, from the clip of an avatar; ours.

Only the last layer of the network moves, and only as far as the clip's own lips demand: ridge
regression on what is left of them, drawn towards no change. What a clip does not show stays as many
people do it. In sounds that no lips make, which a clip hardly has, the person's lips are shut.

An avatar's network must not see features that were fitted to the very frames it learns from: it
would trust them more than new speech deserves. So the features of those frames come from adapted
priors that did not know them.
"""

from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.experts.audio import lip_prior
from fg3dgs_jax.experts.audio.lip_prior import LipPrior

# On units of deviation 1. It is as strong as 3500 frames: ten seconds do not undo many people.
PENALTY = 3500.0
SHUT = 10  # per cent of the frames show shut lips
FOLDS = 5  # blocks of the clip
MIN_FRAMES = 50  # fewer say nothing of a person
MARGIN = 12  # frames beside a block that its prior does not know either
LAG_REACH = 6  # frames by which a clip's lips may come later than its sound, or earlier


def adapt(
    prior: LipPrior,
    heard: np.ndarray,
    curves: np.ndarray,
    learnt: np.ndarray,
    quiet: Sequence[np.ndarray] = (),
) -> tuple[LipPrior, np.ndarray]:
    """Adapts a prior to a person.

    Args:
      prior: of many people.
      heard: float32 [T, D], of `lip_prior.hear`.
      curves: float32 [T, 3], `lip_prior.CURVES` of the person's lips, in any unit.
      learnt: numbers of the frames to learn from, those of the avatar's training.
      quiet: float32 [Q, D] each, as `heard`, of sounds that no lips make.

    Returns:
      The person's prior, and the features [T, 3] of the clip. Of fewer than `MIN_FRAMES` nothing
      is learnt.
    """
    units, common = _units_and_lips(prior, [heard])
    if len(learnt) < MIN_FRAMES:
        return prior, common
    own = (curves - curves[learnt].mean(0)) / np.maximum(curves[learnt].std(0), 1e-6)
    lag = _lag(common, own, learnt)
    # A sound counts where its lips, `lag` frames on, are among those to learn from.
    heard_of = learnt[np.isin(learnt + lag, learnt)]
    missing = own[np.clip(np.arange(len(own)) + lag, 0, len(own) - 1)] - common
    still_units, still = _units_and_lips(prior, quiet)
    shut = own[learnt][own[learnt, 0] <= np.percentile(own[learnt, 0], SHUT)].mean(0)

    def change(frames):
        x = np.concatenate([units[frames], still_units])
        return _ridge(x, np.concatenate([missing[frames], shut - still]))

    kernel, bias = change(heard_of)
    features = common + units @ kernel + bias
    for block in np.array_split(learnt, FOLDS):
        first, last = block[0] - MARGIN, block[-1] + MARGIN
        others = heard_of[(heard_of < first) | (heard_of > last)]
        if len(others):
            block_kernel, block_bias = change(others)
            features[block] = common[block] + units[block] @ block_kernel + block_bias
    name = f"layer_{len(prior.params) - 1}"
    before = prior.params[name]
    layer = {"kernel": before["kernel"] + kernel, "bias": before["bias"] + bias}
    facts = {**prior.facts, "adapted_to_frames": len(learnt)}
    adapted = prior._replace(params={**prior.params, name: layer}, facts=facts)
    return adapted, features.astype(np.float32)


def _units_and_lips(prior, sounds):
    """What the last layer reads [N, U] and gives [N, 3] for what was heard of some sounds."""
    parts = [lip_prior.in_context(prior, heard) for heard in sounds]
    rows = np.concatenate([np.zeros((0, len(lip_prior.OFFSETS) * prior.basis.shape[1])), *parts])
    variables, rows = {"params": prior.params}, rows.astype(np.float32)
    units = prior.network.apply(variables, rows, units=True)
    return np.asarray(units), np.asarray(prior.network.apply(variables, rows))


def _lag(common, own, learnt):
    """By how many frames the lips come after what the prior expects."""

    def agreement(lag):
        frames = learnt[np.isin(learnt + lag, learnt)]
        pairs = zip(common[frames].T[:2], own[frames + lag].T[:2], strict=True)
        return sum(np.nan_to_num(np.corrcoef(*pair)[0, 1]) for pair in pairs)

    return max(range(-LAG_REACH, LAG_REACH + 1), key=agreement)


def _ridge(units, missing):
    """Kernel [U, 3] and bias [3] that add what is missing, drawn towards 0."""
    mean, scale = units.mean(0), units.std(0) + 1e-3
    x = ((units - mean) / scale).astype(np.float64)
    normal = x.T @ x + PENALTY * np.eye(x.shape[1])
    kernel = np.linalg.solve(normal, x.T @ (missing - missing.mean(0))) / scale[:, None]
    return kernel, missing.mean(0) - mean @ kernel
