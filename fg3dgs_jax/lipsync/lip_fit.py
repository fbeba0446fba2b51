"""Fits a lip prior to clips of many people, and judges it on people that it did not learn from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fg3dgs_jax.clip import lips
from fg3dgs_jax.experts.audio import lip_prior, quiet
from fg3dgs_jax.experts.audio.lip_prior import LipPrior
from fg3dgs_jax.lipsync import ruler
from fg3dgs_jax.lipsync.lip_clips import LipClip
from fg3dgs_jax.lipsync.openings import correlation
from fg3dgs_jax.media.clock import FPS, SAMPLES_PER_FRAME

REDUCED = 128  # principal directions of what is heard
FOLDS = 5
ROUNDS = 4  # of lags from the model of the others
LAG_REACH = 12  # frames
RIDGE = 1.0  # penalty a frame, of the linear models that find the lags
UNFIT = 0.35  # correlation of the opening below which a clip's lips do not fit its sound
BATCH, RATE, DECAY = 256, 1e-3, 1e-2  # frames a step, AdamW
NOISE = 0.7  # standard deviations of a mean direction, on what is heard
QUIET = 30  # sounds of 2 s that no lips make
PAUSE = 1.5  # s of near silence after a clip, for lips to fall shut
FALL = 0.3  # s that they take


class Judged(NamedTuple):
    """How well a clip's lips are predicted by a model that does not know its speaker."""

    lag: int  # frames by which the lips come later than predicted: negative, the sound is late
    correlations: Mapping[str, float | None]  # of each curve, at the lag
    f1: float | None  # of closures


class Fit(NamedTuple):
    """A fitted prior and how it came about."""

    prior: LipPrior
    judged: dict[str, Judged]  # by clip, those left out too
    left_out: list[str]  # names of clips whose lips do not fit their sound
    predicted: dict[str, np.ndarray]  # [T, 3] of each clip, by a model of other speakers


class Rows(NamedTuple):
    """What is learnt from, one row a frame."""

    heard: np.ndarray  # [N, 5 C], in context
    lips: np.ndarray  # [N, 3], curves


def fit(
    clips: Sequence[LipClip],
    encoder: dict,
    start: LipPrior,
    steps: int,
    seed: int = 0,
    report: Callable[[str], None] = lambda stage: None,
) -> Fit:
    """Finds the clips' lags, judges by folds without common speakers, and fits the prior to all.

    Args:
      clips: of two speakers or more.
      encoder: Whisper's params, for sounds that no lips make.
      start: the prior to go on from.
      steps: of each network.
      seed: of everything random.
      report: called with the name of each stage as it begins.

    Raises:
      ValueError: fewer than two speakers.
    """
    speakers = sorted({clip.speaker for clip in clips})
    if len(speakers) < 2:
        raise ValueError(f"all clips are of {speakers}; expected two speakers or more")
    report("lags")
    targets = {clip.name: targets_of(clip) for clip in clips}
    rows = {clip.name: lip_prior.in_context(start, clip.heard) for clip in clips}
    folds = _folds(clips, np.random.default_rng(seed))
    lags = find_lags(clips, rows, targets, folds)
    predicted, judged = _cross_predict(clips, rows, targets, folds, lags, _linear)
    left_out = [n for n, j in judged.items() if (j.correlations["opening"] or 0.0) < UNFIT]
    used = [clip for clip in clips if clip.name not in left_out]
    if len({clip.speaker for clip in used}) < 2:
        raise ValueError(f"the lips of {', '.join(left_out)} do not fit their sound; none is left")
    zero = _gauge(used, lags)
    lags = {name: lag - zero for name, lag in lags.items()}
    report("quiet")
    silence = _quiet_rows(used, encoder, start, targets, seed)

    def network(rows: Rows) -> Callable[[np.ndarray], np.ndarray]:
        both = Rows(*map(np.concatenate, zip(rows, silence, strict=True)))
        params = train(both, steps, seed, start.params)
        return lambda x: np.asarray(start.network.apply({"params": params}, x))

    report("folds")
    shifted = {c.name: shift(targets[c.name], lags[c.name]) for c in used}
    predicted, judged_again = _cross_predict(used, rows, targets, folds, lags, network)
    report("prior")
    all_rows = Rows(
        np.concatenate([rows[c.name] for c in used] + [silence.heard]),
        np.concatenate([shifted[c.name] for c in used] + [silence.lips]),
    )
    facts = {
        "learnt_from": start.facts.get("learnt_from", "another prior") + ", then clips of people",
        "clips": len(used),
        "speakers": len({clip.speaker for clip in used}),
        "seconds": round(sum(len(clip.points) for clip in used) / FPS, 1),
        "steps": steps,
        "seed": seed,
    }
    prior = start._replace(params=train(all_rows, steps, seed, start.params), facts=facts)
    return Fit(prior, judged | judged_again, left_out, predicted)


def targets_of(clip: LipClip) -> np.ndarray:
    """What is predicted of a clip, [T, 3]: its curves, standardised, free of a person's style."""
    curves = np.stack(lips.lip_curves(clip.points), 1)
    return ((curves - curves.mean(0)) / np.maximum(curves.std(0), 1e-6)).astype(np.float32)


def find_lags(
    clips: Sequence[LipClip],
    rows: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    folds: Mapping[str, int],
) -> dict[str, int]:
    """By how many frames the lips of each clip come after what its sound makes others' lips do.

    All start at 0. In each round a linear model of the other speakers says where a clip fits best.

    Args:
      clips: all of them.
      rows: {name: [T, 5 C]}.
      targets: {name: [T, 3]}.
      folds: {speaker: number}.
    """
    lags = dict.fromkeys(rows, 0)
    for _ in range(ROUNDS):
        predicted, _ = _cross_predict(clips, rows, targets, folds, lags, _linear)
        for clip in clips:
            truth = lips.LipCurves(*targets[clip.name].T)
            render = lips.LipCurves(*predicted[clip.name].T)
            best = ruler.best_lag(render, truth, reach=LAG_REACH)
            lags[clip.name] = 0 if best is None else best
    return lags


def shift(values: np.ndarray, lag: int) -> np.ndarray:
    """Rows [T, ...] moved forward by `lag` frames, the last ones repeated."""
    return values[np.clip(np.arange(len(values)) + lag, 0, len(values) - 1)]


def train(rows: Rows, steps: int, seed: int, params: dict | None = None) -> dict:
    """Trains a network on frames; returns its params.

    Args:
      rows: all frames.
      steps: of `BATCH` frames.
      seed: of everything random.
      params: to go on from, None for a new network.
    """
    key = jax.random.key(seed)
    network = lip_prior.LipNetwork() if params is None else lip_prior.network_of(params)
    first: Any = params
    if params is None:
        first = network.init(key, jnp.zeros((1, rows.heard.shape[1])))["params"]
    optimizer = optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=DECAY)

    def loss(params, heard, target, key):
        predicted = network.apply({"params": params}, heard, train=True, rngs={"dropout": key})
        return jnp.mean(jnp.square(predicted - target))

    @jax.jit
    def learn(params, heard, target, key):
        def step(carry, key):
            params, state = carry
            key_rows, key_noise, key_drop = jax.random.split(key, 3)
            index = jax.random.randint(key_rows, (BATCH,), 0, len(heard))
            noisy = heard[index]
            noisy = noisy + NOISE * jax.random.normal(key_noise, noisy.shape)
            grads = jax.grad(loss)(params, noisy, target[index], key_drop)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = (params, optimizer.init(params))
        return jax.lax.scan(step, carry, jax.random.split(key, steps))[0][0]

    heard, target = (jnp.asarray(part, jnp.float32) for part in rows)
    return jax.device_get(learn(first, heard, target, jax.random.fold_in(key, 1)))


def _linear(rows):
    """Ridge regression: rows -> (heard -> lips)."""
    x = np.concatenate([rows.heard, np.ones((len(rows.heard), 1), np.float32)], 1)
    penalty = RIDGE * len(x) * np.diag(np.r_[np.ones(x.shape[1] - 1), 0.0]).astype(np.float32)
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ rows.lips)
    return lambda heard: heard @ weights[:-1] + weights[-1]


def reduce(heard: np.ndarray) -> LipPrior:
    """A prior without a network: standardises `heard` [N, D], keeps its principal directions."""
    mean, scale = heard.mean(0), heard.std(0) + 1e-6
    heard = (heard - mean) / scale
    variances, basis = np.linalg.eigh(heard.T @ heard / len(heard))
    basis = basis[:, ::-1][:, :REDUCED] / np.sqrt(variances[::-1][:REDUCED].mean())
    return LipPrior(mean, scale, basis.astype(np.float32), {}, {})


def _folds(clips, rng):
    speakers = sorted({clip.speaker for clip in clips})
    rng.shuffle(speakers)
    return {speaker: k % min(FOLDS, len(speakers)) for k, speaker in enumerate(speakers)}


def _cross_predict(clips, rows, targets, folds, lags, learn):
    """Each clip's lips by a model of the speakers of the other folds, and how good that is."""
    predicted, judged = {}, {}
    for fold in sorted(set(folds.values())):
        others = [c.name for c in clips if folds[c.speaker] != fold]
        mine = [c for c in clips if folds[c.speaker] == fold]
        if not mine or not others:
            continue
        model = learn(
            Rows(
                np.concatenate([rows[n] for n in others]),
                np.concatenate([shift(targets[n], lags[n]) for n in others]),
            )
        )
        for clip in mine:
            predicted[clip.name] = model(rows[clip.name])
            judged[clip.name] = judge(clip, predicted[clip.name], lags[clip.name])
    return predicted, judged


def judge(clip: LipClip, predicted: np.ndarray, lag: int) -> Judged:
    """Compares a clip's lips with those predicted, [T, 3], at its lag."""
    truth = lips.lip_curves(shift(clip.points, lag))
    correlations = {
        name: correlation(getattr(truth, name), predicted[:, k])
        for k, name in enumerate(lips.CURVES)
    }
    opening = truth.opening.mean() + truth.opening.std() * predicted[:, 0]
    return Judged(lag, correlations, ruler.match_closures(truth.opening, opening).f1)


def _gauge(clips, lags):
    """The lag of clips in step, as those say whose own spectrum tells how late they are."""
    known = [lags[clip.name] + clip.late * FPS for clip in clips if clip.late is not None]
    return round(float(np.median(known))) if known else 0


def _quiet_rows(clips, encoder, prior, targets, seed):
    """Rows of sounds that no lips make, and lips at rest: as they are when they are shut."""
    rng = np.random.default_rng(seed)
    closed = [t[t[:, 0] <= np.percentile(t[:, 0], 10)].mean(0) for t in targets.values()]
    rest = np.mean(closed, 0)
    heard, still = [], []
    for samples in quiet.sounds(rng, QUIET):
        frames = len(samples) // SAMPLES_PER_FRAME
        row = lip_prior.in_context(prior, lip_prior.hear(encoder, samples, frames))
        heard.append(row)
        still.append(np.repeat(rest[None], frames, 0))
    pause, fall = round(PAUSE * FPS), round(FALL * FPS)
    rate = np.clip(np.arange(pause) / fall, 0.0, 1.0)[:, None]
    for clip in clips:
        # What was heard 3 s ago is still heard: a pause after speech is not all silence.
        spoken = clip.samples[-3 * FPS * SAMPLES_PER_FRAME :]
        level = 32767 * 10 ** rng.uniform(-5.0, -2.5)
        room = rng.normal(0.0, level, pause * SAMPLES_PER_FRAME)
        samples = np.concatenate([spoken, np.clip(room, -32768, 32767).astype(np.int16)])
        frames = len(samples) // SAMPLES_PER_FRAME
        row = lip_prior.in_context(prior, lip_prior.hear(encoder, samples, frames))
        heard.append(row[-pause:])
        last = targets[clip.name][-1]
        still.append(last + rate * (rest - last))
    return Rows(np.concatenate(heard), np.concatenate(still).astype(np.float32))
