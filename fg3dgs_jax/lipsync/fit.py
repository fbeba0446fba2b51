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

SEGMENT, BATCH = 64, 4  # frames of a training segment, segments a step
SHORT, SHORT_BATCH = 28, 8  # the same for clips that are shorter than SEGMENT
JUDGED = 2 * shift_scores.REACH + expert.FRAMES - 1  # frames: fewer lack half of the shifts
MANY = 8  # speakers from which on some are held out whole
HELD_OUT_SPEAKERS = 1 / 8  # of many
RATE, DECAY = 1e-3, 1e-2  # AdamW; the rate falls by a cosine over all steps
EASY = 300  # steps over which the disturbances grow: from the start they would hide what to learn
CHECK_EVERY = 50  # steps between looks at what is held out
PATIENCE = 5  # looks without improvement before training stops
HELD_OUT = 1 / 11  # of the training part of a clip, its end, where speakers are few
_CHUNK = 60  # windows embedded at once


class Parts(NamedTuple):
    """Frame ranges [start, stop) of a clip; the test part is never learnt from."""

    train: tuple[int, int]
    held_out: tuple[int, int]  # stops and calibrates
    test: tuple[int, int]


def plan(lengths: Sequence[int], speakers: Sequence[str], seed: int) -> list[Parts]:
    """How clips are used.

    Of many speakers some are held out with all their clips, and the clips of the others are learnt
    whole. Of few, the ends of clips are held out. Clips too short for that are learnt whole, as are
    those whose end cannot be judged if there are others.

    Args:
      lengths: frames of each clip.
      speakers: who speaks in each.
      seed: of the choice.

    Raises:
      ValueError: nothing can be held out, or a clip is too short to be learnt from. One line.
    """
    if short := [n for n in lengths if n < SHORT]:
        raise ValueError(f"a clip has {min(short)} frames; expected {SHORT} or more")
    names = sorted(set(speakers))
    if len(names) >= MANY:
        count = round(len(names) * HELD_OUT_SPEAKERS)
        held_out = set(np.random.default_rng(seed).choice(names, count, replace=False))
        return [
            Parts((0, 0), (0, n), (0, n)) if who in held_out else Parts((0, n), (n, n), (n, n))
            for n, who in zip(lengths, speakers, strict=True)
        ]
    longest = max(lengths)
    if not _has_end(longest):
        parts(longest)  # refuses
    split = [_has_end(n) and n - format.train_frames(n) >= JUDGED for n in lengths]
    if not any(split):
        split = [_has_end(n) for n in lengths]
    return [
        parts(n) if end else Parts((0, n), (n, n), (n, n))
        for n, end in zip(lengths, split, strict=True)
    ]


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
        needed = next(n for n in range(num_frames, 1000) if _has_end(n))
        raise ValueError(
            f"a clip of {num_frames} frames is too short; expected {needed} or more "
            f"({needed / FPS:.0f} s)"
        )
    return Parts((0, stop), (stop, cut), (cut, num_frames))


def fit(
    clips: Sequence[examples.SyncClip],
    ranges: Sequence[Parts],
    steps: int,
    seed: int = 0,
    report: Callable[[dict], None] = lambda row: None,
) -> Fit:
    """Trains one expert on the train parts of all clips.

    Args:
      clips: `examples.SyncClip`s.
      ranges: how each of them is used, see `plan`.
      steps: at most so many.
      seed: of everything random.
      report: called with every row of the history.
    """
    learnt = [(c, r.train[1]) for c, r in zip(clips, ranges, strict=True) if r.train[1]]
    pools = _pools(learnt)
    bands = np.concatenate([c.sound[:stop] for c, stop in learnt])
    bands = bands.reshape(-1, bands.shape[-1])
    held_out = [(c, r.held_out) for c, r in zip(clips, ranges, strict=True)]
    held_out = [(c, r) for c, r in held_out if r[1] - r[0] >= expert.FRAMES]
    key = jax.random.key(seed)
    params = expert.init(jax.random.fold_in(key, steps), bands.mean(0), bands.std(0) + 1e-3)
    optimizer = _optimizer(steps)
    state = optimizer.init(params)
    best, history, losses = (np.inf, 0, params), [], []
    for step in range(steps):
        stored, windows = _segments(np.random.default_rng((seed, step)), pools[step % len(pools)])
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
        value = _held_out(params, held_out)
        mean = float(np.mean(jax.device_get(losses)))
        history.append({"step": step + 1, "train": mean, "held_out": value})
        report(history[-1])
        losses.clear()
        if not np.isfinite(mean + value):
            raise ValueError(
                f"the loss is not finite after {step + 1} steps (training {mean}, held out "
                f"{value}): train with another --seed"
            )
        if value < best[0]:
            best = (value, step + 1, params)
        elif step + 1 - best[1] >= PATIENCE * CHECK_EVERY:
            break
    _, step, params = best
    return Fit(params | {"calibration": jnp.asarray(_calibrate(params, held_out))}, step, history)


def cosines(params: dict, clip: examples.SyncClip, start: int, stop: int) -> np.ndarray:
    """[V, V] of the mouth windows (down) and sound windows (across) within frames start .. stop."""
    parts_of = []
    for first in range(start, stop - expert.FRAMES + 1, _CHUNK):
        index = np.minimum(np.arange(first, first + _CHUNK + expert.FRAMES - 1), stop - 1)
        middles = index[expert.MIDDLE : -expert.MIDDLE]
        parts_of.append(_embed(params, clip.mouths[index], clip.sound[middles]))
    count = stop - start - expert.FRAMES + 1
    lips, sound = (np.concatenate(part)[:count] for part in zip(*parts_of, strict=True))
    return lips @ sound.T


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


class Pool(NamedTuple):
    """Clips whose segments have one length."""

    clips: list[tuple[examples.SyncClip, int]]  # and how many frames of each are learnt
    segment: int  # frames
    batch: int  # segments a step


def _pools(learnt):
    """Long clips, and in every third step those that are shorter than a segment."""
    long = Pool([pair for pair in learnt if pair[1] >= SEGMENT], SEGMENT, BATCH)
    short = Pool([pair for pair in learnt if pair[1] < SEGMENT], SHORT, SHORT_BATCH)
    if not long.clips or not short.clips:
        return [long if long.clips else short]
    return [long, long, short]


def _segments(rng, pool):
    """Segments of random clips; a clip of four times the length is drawn twice as often."""
    lengths = np.sqrt([length for _, length in pool.clips])
    repeat = len(pool.clips) < pool.batch
    stored, windows = [], []
    for k in rng.choice(len(lengths), pool.batch, repeat, lengths / lengths.sum()):
        clip, length = pool.clips[k]
        start = rng.integers(0, length - pool.segment + 1)
        stop = start + pool.segment
        stored.append(clip.mouths[start:stop])
        windows.append(clip.sound[start + expert.MIDDLE : stop - expert.MIDDLE])
    return np.stack(stored), np.stack(windows)


@jax.jit
def _embed(params, stored, windows):
    """Mouths uint8 [V + 4, 72, 72, 3], mel windows [V, 16, 80], undisturbed -> [V, 64] twice."""
    mouths = examples.plain_mouths(stored)[None]
    lips, sound = examples.embed(params, mouths, expert.standardise_sound(params, windows)[None])
    return lips[0], sound[0]


def _held_out(params, held_out):
    """Mean over the losses of `shift_losses`, undisturbed, in pieces as long as in training."""
    values, counts = [], []
    scale = float(np.exp(params["log_scale"]))
    for clip, (first, last) in held_out:
        for start in range(first, max(last - SEGMENT, first) + 1, SEGMENT):
            stop = min(start + SEGMENT, last)
            similar = scale * cosines(params, clip, start, stop)
            losses = examples.shift_losses(jnp.asarray(similar)[None])
            values.append(np.mean(jax.device_get(list(losses.values()))))
            counts.append(stop - start)  # a short piece says little
    return float(np.average(values, weights=counts))


def _calibrate(params, held_out):
    """Slope and intercept of the logistic curve from cosine to probability, by Newton's method.

    As many in-sync windows as out-of-sync ones (2 to 15 frames), by weight, from the held-out
    parts; a little ridge keeps the slope finite where the two do not overlap.
    """
    right, wrong = [], []
    for clip, part in held_out:
        by_shift = shift_scores.by_shift(cosines(params, clip, *part))
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


def _has_end(num_frames):
    """Whether a clip has frames for a training segment and a held-out end."""
    return int(format.train_frames(num_frames) * (1 - HELD_OUT)) >= SEGMENT
