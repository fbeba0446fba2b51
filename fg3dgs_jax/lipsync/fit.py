"""Trains the lip-sync expert; what is held out of the clips stops it and calibrates it."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fg3dgs_jax.clip import format
from fg3dgs_jax.lipsync import examples, expert, shift_scores
from fg3dgs_jax.media.clock import FPS

SEGMENT = 64  # frames of a training segment
BATCH = 4  # segments a step
RATE, DECAY = 1e-3, 1e-2  # AdamW; the rate falls by a cosine over all steps
EASY = 300  # steps over which the disturbances grow: from the start they would hide what to learn
CHECK_EVERY = 50  # steps between looks at what is held out
PATIENCE = 5  # looks without improvement before training stops
HELD_OUT = 1 / 11  # of the training part, its end: for stopping and calibration


class Parts(NamedTuple):
    """Frame ranges [start, stop) of a clip, in order; the test part is never learnt from."""

    train: tuple[int, int]
    held_out: tuple[int, int]
    test: tuple[int, int]


class Fit(NamedTuple):
    """A trained expert and how it came about."""

    variables: dict
    step: int  # whose variables these are: the one best on the held-out parts
    history: list  # a dict for each look: step, train, held_out


def parts(num_frames: int) -> Parts:
    """How a clip is used: its training split ends with a held-out part.

    Raises:
      ValueError: too few frames for one training segment.
    """
    cut = format.train_frames(num_frames)
    stop = int(cut * (1 - HELD_OUT))
    if stop < SEGMENT:
        needed = next(n for n in range(num_frames, 1000) if int(n * 100 / 121) > SEGMENT)
        raise ValueError(
            f"a clip of {num_frames} frames is too short; expected {needed} or more "
            f"({needed / FPS:.0f} s)"
        )
    return Parts((0, stop), (stop, cut), (cut, num_frames))


def fit(
    clips: Sequence[examples.SyncClip],
    steps: int,
    seed: int = 0,
    report: Callable[[dict], None] = lambda row: None,
) -> Fit:
    """Trains one expert on the train parts of all clips.

    Args:
      clips: `examples.SyncClip`s.
      steps: at most so many.
      seed: of everything random.
      report: called with every row of the history.
    """
    ranges = [parts(len(clip.mouths)) for clip in clips]
    sound = np.concatenate([c.sound[: r.train[1]] for c, r in zip(clips, ranges, strict=True)])
    bands = sound.reshape(-1, sound.shape[-1])
    key = jax.random.key(seed)
    params = expert.init(jax.random.fold_in(key, steps), bands.mean(0), bands.std(0) + 1e-3)
    optimizer = _optimizer(steps)
    state = optimizer.init(params)
    best, history, losses = (np.inf, 0, params), [], []
    for step in range(steps):
        stored, windows = _segments(np.random.default_rng((seed, step)), clips, ranges)
        params, state, value = _step(
            optimizer,
            params,
            state,
            stored,
            windows,
            jax.random.fold_in(key, step),
            min(1.0, step / EASY),
        )
        losses.append(value)
        if (step + 1) % CHECK_EVERY and step + 1 < steps:
            continue
        counts = [r.held_out[1] - r.held_out[0] for r in ranges]
        values = [_held_out(params, c, r) for c, r in zip(clips, ranges, strict=True)]
        held_out = float(np.average(values, weights=counts))  # a short clip's part says little
        mean = float(np.mean(jax.device_get(losses)))
        history.append({"step": step + 1, "train": mean, "held_out": held_out})
        report(history[-1])
        losses.clear()
        if not np.isfinite(mean + held_out):
            raise ValueError(
                f"the loss is not finite after {step + 1} steps (training {mean}, held out "
                f"{held_out}): train with another --seed"
            )
        if held_out < best[0]:
            best = (held_out, step + 1, params)
        elif step + 1 - best[1] >= PATIENCE * CHECK_EVERY:
            break
    _, step, params = best
    return Fit(
        params | {"calibration": jnp.asarray(_calibrate(params, clips, ranges))}, step, history
    )


def cosines(params: dict, clip: examples.SyncClip, start: int, stop: int) -> np.ndarray:
    """[V, V] of the mouth windows (down) and sound windows (across) within frames start .. stop."""
    lips = _see(params, jnp.asarray(clip.mouths[start:stop]))
    middles = clip.sound[start + expert.MIDDLE : stop - expert.MIDDLE]
    sound = expert.embed_sound(params, middles)
    return np.asarray(lips) @ np.asarray(sound).T


@functools.cache
def _optimizer(steps):
    labels = {"mouth": True, "sound": True, "log_scale": True, "bands": False, "calibration": False}
    adam = optax.adamw(optax.cosine_decay_schedule(RATE, steps, 0.05), weight_decay=DECAY)
    return optax.multi_transform(
        {True: adam, False: optax.set_to_zero()},
        lambda tree: {k: jax.tree.map(lambda _, k=k: labels[k], v) for k, v in tree.items()},
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step(optimizer, params, state, stored, windows, key, strength):
    (value, _), grads = jax.value_and_grad(examples.loss, has_aux=True)(
        params, stored, windows, key, strength
    )
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value


def _segments(rng, clips, ranges):
    """BATCH segments of random clips; a clip of four times the length is drawn twice as often."""
    lengths = np.sqrt([r.train[1] for r in ranges])
    stored, windows = [], []
    for k in rng.choice(len(clips), BATCH, p=lengths / lengths.sum()):
        start = rng.integers(0, ranges[k].train[1] - SEGMENT + 1)
        stop = start + SEGMENT
        stored.append(clips[k].mouths[start:stop])
        windows.append(clips[k].sound[start + expert.MIDDLE : stop - expert.MIDDLE])
    return np.stack(stored), np.stack(windows)


@jax.jit
def _see(params, stored):
    lips, _ = examples.embed(
        params, examples.plain_mouths(stored)[None], jnp.zeros((1, 1, *expert.SOUND))
    )
    return lips[0]


def _held_out(params, clip, ranges):
    """Mean over the losses of `shift_losses`, undisturbed."""
    similar = cosines(params, clip, *ranges.held_out) * float(np.exp(params["log_scale"]))
    values = examples.shift_losses(jnp.asarray(similar)[None])
    return float(np.mean(jax.device_get(list(values.values()))))


def _calibrate(params, clips, ranges):
    """Slope and intercept of the logistic curve from cosine to probability, by Newton's method.

    As many in-sync windows as out-of-sync ones (2 to 15 frames), by weight, from the held-out
    parts; a little ridge keeps the slope finite where the two do not overlap.
    """
    right, wrong = [], []
    for clip, ranges_of in zip(clips, ranges, strict=True):
        by_shift = shift_scores.by_shift(cosines(params, clip, *ranges_of.held_out))
        middle = by_shift.shape[1] // 2
        right.append(by_shift[:, middle])
        far = np.delete(by_shift, (middle - 1, middle, middle + 1), axis=1)
        wrong.append(far[np.isfinite(far)])
    right, wrong = np.concatenate(right), np.concatenate(wrong)
    x = np.stack([np.concatenate([right, wrong]), np.ones(len(right) + len(wrong))], 1)
    y = np.repeat([1.0, 0.0], [len(right), len(wrong)])
    weight = np.repeat([0.5 / len(right), 0.5 / len(wrong)], [len(right), len(wrong)])
    ridge, curve = 1e-3, np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ curve))
        slope = x.T @ (weight * (y - p)) - ridge * curve * [1, 0]
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge * np.diag([1, 1e-6])
        curve = curve + np.linalg.solve(bend, slope)
    return curve.astype(np.float32)
