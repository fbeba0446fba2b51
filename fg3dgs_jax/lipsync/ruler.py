"""The lips of a render against the real lips that spoke the same sound.

The ruler needs no network's opinion: its truth is real lips. Three curves are compared at one
common lag, which also takes out that a video's sound may be late. Lips that shut are counted apart,
because a viewer notices a missed "m" at once and a correlation hardly does.

Frames without a face are NaN in all curves. What cannot be computed is None.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fg3dgs_jax.clip.lips import CURVES, LipCurves
from fg3dgs_jax.lipsync.openings import correlation

REACH = 9  # frames, the largest lag, 360 ms
MIN_FRAMES = 25  # known in both curves, below which nothing is compared
CLOSE = 1  # frame, by which a closure may be missed, and a lag differ from the median
# Shut and open again, as shares of a person's own range above the lips' rest. On 43 real clips the
# minima of the opening lie below 0.1 (lips touch) or are spread evenly above 0.15 (they do not).
SHUT, REOPENED = 0.15, 0.25
REST, WIDE = 2.0, 90.0  # percentiles of a person's opening that bound the range
MAX_REST = 0.02  # eye distances: lips that touch measured less on every real clip
MIN_RANGE = 0.03  # eye distances, half the smallest range of a real clip: less is jitter
FAR = 50  # frames; speech two seconds away is another speech
MAX_CHANCE_PAIRS = 400


@dataclasses.dataclass(frozen=True)
class Closures:
    """How many moments of shut lips two videos have in common."""

    real: int  # closures of the real lips
    rendered: int  # closures of the render
    hit: int  # real ones that have a rendered one of their own
    caused: int  # rendered ones that have a real one

    @property
    def recall(self) -> float | None:
        """The share of real closures that the render makes."""
        return self.hit / self.real if self.real else None

    @property
    def precision(self) -> float | None:
        """The share of rendered closures that the real lips make."""
        return self.caused / self.rendered if self.rendered else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of recall and precision, 0 where the render never shuts."""
        if self.recall is None:
            return None
        precision = self.precision or 0.0
        total = self.recall + precision
        return 2 * self.recall * precision / total if total else 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the ruler measures on one video."""

    frames: int  # with a face in both, at the best lag
    lag: int | None  # frames by which the rendered lips come after the real ones
    correlations: Mapping[str, float | None]  # of each curve, at `lag`
    spreads: Mapping[str, float | None]  # standard deviation of each curve, render over truth
    closures: Closures  # at `lag`
    correlations_at: Mapping[str, float | None] | None = None  # at a lag that was given

    def figures(self) -> dict[str, float | int | None]:
        """Returns all figures under the names that `drive.json` gives them."""
        fixed = self.correlations_at or dict.fromkeys(CURVES)
        return {
            "frames": self.frames,
            "lag": self.lag,
            **self.correlations,
            **{f"{name}_spread": value for name, value in self.spreads.items()},
            "closures": self.closures.real,
            "closures_rendered": self.closures.rendered,
            "recall": self.closures.recall,
            "precision": self.closures.precision,
            "f1": self.closures.f1,
            **{f"{name}_at_median_lag": value for name, value in fixed.items()},
        }


# Of a video that was not measured.
NOTHING = Comparison(0, None, dict.fromkeys(CURVES), dict.fromkeys(CURVES), Closures(0, 0, 0, 0))


def compare(
    truth: LipCurves, render: LipCurves, late_frames: float = 0.0, at_lag: int | None = None
) -> Comparison:
    """Compares the lips of one video with those of a render that speaks its sound.

    Args:
      truth: curves [T] of the real lips, NaN where there is no face.
      render: curves [T] of the rendered lips, likewise.
      late_frames: frames by which the video's sound is known to come after its picture. It is taken
        out, so that lags are counted from there. 0 leaves all of it to the best lag.
      at_lag: also gives the correlations at this lag.
    """
    late = round(late_frames)
    lag = best_lag(truth, render, late)
    used = late if lag is None else lag
    pairs = {name: _overlap(getattr(truth, name), getattr(render, name), used) for name in CURVES}
    return Comparison(
        frames=int(np.isfinite(pairs["opening"]).all(0).sum()),
        lag=None if lag is None else lag - late,
        correlations=correlations(truth, render, used),
        spreads={name: _spread(*pair) for name, pair in pairs.items()},
        closures=match_closures(truth.opening, render.opening, used),
        correlations_at=None if at_lag is None else correlations(truth, render, at_lag + late),
    )


def correlations(truth: LipCurves, render: LipCurves, lag: int) -> dict[str, float | None]:
    """Returns Pearson's correlation of each curve, with the render `lag` frames later."""
    return {name: _correlation(getattr(truth, name), getattr(render, name), lag) for name in CURVES}


def best_lag(
    truth: LipCurves, render: LipCurves, centre: int = 0, reach: int = REACH
) -> int | None:
    """Returns the lag at which opening and width together correlate best.

    Args:
      truth: curves [T] of the real lips.
      render: curves [T] of the rendered lips.
      centre: the middle of the lags that are tried, frames.
      reach: the largest distance from it, frames.

    Returns:
      frames, positive where the render is later. None where no lag has a correlation.
    """
    scores = {}
    for step in range(-reach, reach + 1):
        pair = (
            _correlation(truth.opening, render.opening, centre + step),
            _correlation(truth.width, render.width, centre + step),
        )
        known = [value for value in pair if value is not None]
        if known:
            scores[centre + step] = sum(known)
    return max(scores, key=lambda lag: scores[lag]) if scores else None


def shut_runs(opening: np.ndarray) -> np.ndarray:
    """Returns when the lips are shut, judged by this person's own range in this video.

    A run begins below `SHUT` of the range and ends where the lips rise above `REOPENED`, or where
    the face is lost. It reaches to its last frame below `SHUT`.

    Args:
      opening: [T] in eye distances, NaN where there is no face.

    Returns:
      int [N, 2]: first frame, and the one after the last.
    """
    opening = np.asarray(opening, np.float64)
    known = opening[np.isfinite(opening)]
    if len(known) < MIN_FRAMES:
        return np.zeros((0, 2), int)
    # Lips that never touch have no rest of their own: they would shut by their own measure.
    low = min(np.percentile(known, REST), MAX_REST)
    height = max(np.percentile(known, WIDE) - low, MIN_RANGE)
    runs: list[list[int]] = []
    shut = False
    for frame, value in enumerate(opening):
        if value < low + SHUT * height:
            if shut:
                runs[-1][1] = frame + 1
            else:
                runs.append([frame, frame + 1])
            shut = True
        elif not value < low + REOPENED * height:  # also where it is NaN
            shut = False
    return np.array(runs, int).reshape(-1, 2)


def match_closures(truth: np.ndarray, render: np.ndarray, lag: int = 0) -> Closures:
    """Counts the closures that real and rendered lips have in common.

    Two closures fit if the middle of the shorter one lies within a frame of the longer one. A
    rendered closure counts for one real closure only: a mouth that stays shut makes one closure,
    not all of them. Closures beside which the other face is unknown are left out.

    Args:
      truth: opening [T] of the real lips.
      render: opening [T] of the rendered lips.
      lag: frames by which the render is later.
    """
    curves = _overlap(truth, render, lag)
    offsets = max(-lag, 0), max(lag, 0)
    runs = []
    for curve, first, other in zip((truth, render), offsets, curves[::-1], strict=True):
        inside = np.clip(shut_runs(curve) - first, 0, len(other))
        runs.append([run for run in inside if run[1] > run[0] and _is_known(other, run)])
    real, rendered = runs
    fits = np.array([[_fits(a, b) for b in rendered] for a in real], bool)
    fits = fits.reshape(len(real), len(rendered))
    hit, first = 0, 0
    for row in fits:  # both in order of time: the first that fits leaves most to the others
        partners = first + np.flatnonzero(row[first:])
        if len(partners):
            hit, first = hit + 1, partners[0] + 1
    caused = int(fits.any(0).sum())
    return Closures(len(real), len(rendered), hit, caused)


def chance(pairs: Sequence[tuple[LipCurves, LipCurves]]) -> dict[str, float | None]:
    """Returns what the ruler gives to lips that have nothing to do with each other.

    The real lips of each video meet the renders of all others, at their best lag. A single video
    meets its own render, turned round by two seconds or more.

    Args:
      pairs: truth and render of each video.

    Returns:
      The means of opening, width, protrusion, recall, precision and f1.
    """
    strangers = list(_strangers(pairs))
    stride = -(-len(strangers) // MAX_CHANCE_PAIRS) or 1
    figures = [compare(*pair).figures() for pair in strangers[::stride]]
    return {n: _mean([f[n] for f in figures]) for n in (*CURVES, "recall", "precision", "f1")}


def median_lag(comparisons: Sequence[Comparison]) -> int | None:
    """Returns the median of the lags, one of them, frames."""
    lags = [c.lag for c in comparisons if c.lag is not None]
    return statistics.median_low(lags) if lags else None


def summary(comparisons: Sequence[Comparison]) -> dict[str, float | int | None]:
    """Returns the means over videos of all figures of `Comparison.figures`, and how lags agree.

    In place of the mean lag stand `median_lag` and `near_median_lag`: how many of the videos have a
    lag within one frame of it.
    """
    rows = [c.figures() for c in comparisons]
    names = [name for name in NOTHING.figures() if name != "lag"]
    middle = median_lag(comparisons)
    lags = [c.lag for c in comparisons if c.lag is not None]
    return {
        "videos": len(rows),
        **{name: _mean([row[name] for row in rows]) for name in names},
        "median_lag": middle,
        "near_median_lag": sum(middle is not None and abs(lag - middle) <= CLOSE for lag in lags),
    }


def _overlap(truth: np.ndarray, render: np.ndarray, lag: int) -> np.ndarray:
    """[2, n] of two curves where both last, with the render moved back by `lag` frames."""
    a = np.asarray(truth, np.float64)[max(-lag, 0) :]
    b = np.asarray(render, np.float64)[max(lag, 0) :]
    length = min(len(a), len(b))
    return np.stack([a[:length], b[:length]])


def _known(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """[2, n] of two curves where both are known, or None where that is too little."""
    both = np.stack([a, b])
    both = both[:, np.isfinite(both).all(0)]
    return both if both.shape[1] >= MIN_FRAMES else None


def _correlation(truth: np.ndarray, render: np.ndarray, lag: int) -> float | None:
    both = _known(*_overlap(truth, render, lag))
    return None if both is None else correlation(*both)


def _spread(truth: np.ndarray, render: np.ndarray) -> float | None:
    both = _known(truth, render)
    if both is None or both[0].std() < 1e-9:
        return None
    return float(both[1].std() / both[0].std())


def _is_known(curve: np.ndarray, run: np.ndarray) -> bool:
    """Whether a curve is known at every frame of a run and one beside it."""
    return bool(np.isfinite(curve[max(run[0] - CLOSE, 0) : run[1] + CLOSE]).all())


def _fits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the middle of the shorter run lies within a frame of the longer one."""
    shorter, longer = sorted((a, b), key=lambda run: run[1] - run[0])
    middle = (shorter[0] + shorter[1] - 1) / 2
    return bool(longer[0] - CLOSE <= middle <= longer[1] - 1 + CLOSE)


def _strangers(
    pairs: Sequence[tuple[LipCurves, LipCurves]],
) -> Iterator[tuple[LipCurves, LipCurves]]:
    """Pairs of real and rendered lips that do not belong together."""
    if len(pairs) > 1:
        for (truth, _), (_, render) in itertools.permutations(pairs, 2):
            yield truth, render
        return
    for truth, render in pairs:
        for shift in range(FAR, len(render.opening) - FAR + 1, CLOSE + REACH):
            yield truth, LipCurves(*(np.roll(curve, shift) for curve in render))


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
