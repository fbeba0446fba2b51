"""Fits a lip prior to videos or processed folders, and reports what it is worth."""

import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.clip import lips
from fg3dgs_jax.experts.audio import lip_prior, whisper
from fg3dgs_jax.lipsync import lip_clips, lip_fit, openings
from fg3dgs_jax.lipsync.lip_clips import LipClip
from fg3dgs_jax.media import plots
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import faults
from fg3dgs_jax.weights import store

STEPS = 1000
DRAWN = 6  # clips in the picture of curves


def fit_prior(
    data: Sequence[os.PathLike | str],
    out: os.PathLike | str,
    speakers: os.PathLike | str | None = None,
    steps: int = STEPS,
    seed: int = 0,
) -> dict:
    """Goes on from the shipped prior with people.

    Writes `lip_prior.npz`, `lip_prior.json` and `lip_curves.png`.

    What was read of the clips is kept in OUT/clips, so that the next fit is quick.

    Args:
      data: videos or processed folders.
      out: the folder to write.
      speakers: see `lip_clips.speakers_of`.
      steps: of each network.
      seed: of everything random.

    Returns:
      What `lip_prior.json` holds.

    Raises:
      ValueError: too few clips can be used, or weights are missing. One line.
    """
    out = pathlib.Path(out)
    encoder = whisper.load(store.require("whisper_tiny_en"))
    start = time.perf_counter()
    clips, unread = read_clips(data, speakers, encoder, out / "clips")
    read_seconds = time.perf_counter() - start
    if len(clips) < 2:
        raise ValueError(f"{len(clips)} of {len(data)} clips can be used; expected 2 or more")
    start = time.perf_counter()
    with progress(desc="fit", total=4, unit="stage") as bar:

        def show(stage):
            bar.set_postfix_str(stage)
            bar.update(int(stage != "lags"))

        begin = lip_prior.load(lip_prior.SHIPPED)
        fitted = lip_fit.fit(clips, encoder, begin, steps, seed, show)
        bar.update(1)
    seconds = time.perf_counter() - start
    lip_prior.save(out / f"{lip_prior.NAME}.npz", fitted.prior)
    plots.write_png(out / "lip_curves.png", picture(clips, fitted))
    report = {
        **fitted.prior.facts,
        "read_seconds": round(read_seconds, 1),
        "fit_seconds": round(seconds, 1),
        "mean": means(fitted),
        "clips": {n: {"lag": j.lag, **j.correlations, "f1": j.f1} for n, j in _in_order(fitted)},
        "left_out": fitted.left_out,
        "unread": unread,
    }
    with whole(out / f"{lip_prior.NAME}.json") as part:
        part.write_text(json.dumps(report, indent=1))
    return report


def read_clips(
    data: Sequence[os.PathLike | str],
    speakers: os.PathLike | str | None,
    encoder: dict,
    cache: pathlib.Path,
) -> tuple[list[LipClip], dict[str, str]]:
    """Reads clips, and says of those that cannot be used why: {path: reason}.

    Args:
      data: videos or processed folders.
      speakers: see `lip_clips.speakers_of`.
      encoder: Whisper's params.
      cache: see `lip_clips.read_clip`.

    Raises:
      ValueError: two clips have one name.
    """
    names = [pathlib.Path(path).resolve().stem for path in data]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"more than one clip is called {', '.join(twice)}; expected each once")
    clips, unread = [], {}
    of = lip_clips.speakers_of(data, speakers)
    for path in progress(data, desc="lips and sound", unit="clip"):
        try:
            clips.append(lip_clips.read_clip(path, of[str(path)], encoder, cache))
        except (ValueError, OSError) as error:
            if faults.is_full(error):  # it is not the clip's fault
                raise
            unread[str(path)] = " ".join(str(error).split())
            print(f"left out: {unread[str(path)]}", file=sys.stderr)
    return clips, unread


def means(fitted: lip_fit.Fit) -> dict[str, float]:
    """Mean correlations and F1 over the clips that were learnt from, each by other speakers."""
    rows = [j for name, j in fitted.judged.items() if name not in fitted.left_out]
    columns = {name: [j.correlations[name] for j in rows] for name in lips.CURVES}
    columns["f1"] = [j.f1 for j in rows]
    known = {name: [v for v in values if v is not None] for name, values in columns.items()}
    return {name: round(float(np.mean(v)), 3) for name, v in known.items() if v}


def picture(clips: Sequence[LipClip], fitted: lip_fit.Fit) -> np.ndarray:
    """Real curves over those predicted by a model of other speakers, of a few clips."""
    strips = []
    chosen = [clip for clip in clips if clip.name in fitted.predicted]
    for clip in chosen[:: max(len(chosen) // DRAWN, 1)][:DRAWN]:
        judged, predicted = fitted.judged[clip.name], fitted.predicted[clip.name]
        points = lip_fit.shift(clip.points, judged.lag)
        curves = []
        for k, (name, real) in enumerate(lips.lip_curves(points)._asdict().items()):
            scaled = real.mean() + real.std() * predicted[:, k]
            title = f"{clip.name}: {name}, eye distances. {judged.correlations[name] or 0:.2f}"
            curves.append(plots.Strip(title, {"real": real, "predicted": scaled}))
        loudness = openings.envelope(clip.samples, len(points))
        strips.append(plots.plot_strips(curves, loudness, np.ones(len(points), bool)))
    width = max(strip.shape[1] for strip in strips)
    return np.vstack([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips])


def _in_order(fitted):
    return sorted(fitted.judged.items())
