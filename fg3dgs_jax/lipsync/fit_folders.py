"""Fits the lip-sync expert to processed folders and reports what it is worth.

The last eleventh of every clip (the test split) is not trained on: the expert is tried there at all
shifts of the sound, as it is on the clips of speakers that it does not know.
"""

import json
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.lipsync import examples, expert, fit, shift_scores
from fg3dgs_jax.media import plots, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole


def fit_folders(
    data: Sequence[os.PathLike | str],
    out: os.PathLike | str,
    unseen: Sequence[os.PathLike | str] = (),
    steps: int = 400,
    seed: int = 0,
) -> dict:
    """Trains one expert; writes `sync_expert.npz`, `report.json` and `score_by_shift.png`.

    Args:
      data: processed folders to learn from.
      out: the folder to write.
      unseen: processed folders to try it on only.
      steps: at most so many.
      seed: of everything random.

    Returns:
      what `report.json` holds.

    Raises:
      ValueError: a folder that cannot be used, or two of one name; one line.
    """
    data, unseen = ([pathlib.Path(p) for p in paths] for paths in (data, unseen))
    out = pathlib.Path(out)
    names = [p.resolve().name for p in (*data, *unseen)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(
            f"more than one folder is called {', '.join(twice)}; expected every clip once, each "
            "under its own name"
        )
    if steps < 1:
        raise ValueError(f"--steps is {steps}; expected 1 or more")
    clips, strangers = ([sync_clip(p) for p in paths] for paths in (data, unseen))
    ranges = [fit.parts(len(c.mouths)) for c in clips]  # refuses before any work
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    fitted = _fit_with_bar(clips, steps, seed)
    seconds = time.perf_counter() - start
    expert.save(out / f"{expert.NAME}.npz", fitted.variables)
    scores = {}
    for clip, range_of in zip(clips, ranges, strict=True):
        scores[f"{clip.name} (end, unseen)"] = _scores(fitted.variables, clip, *range_of.test)
    for clip in strangers:
        key = f"{clip.name} (speaker unseen)"
        scores[key] = _scores(fitted.variables, clip, 0, len(clip.mouths))
    picture = plots.plot_by_shift(
        {f"{n}: {s['aligned']:.0%} of {s['runs']}": s["curve"] for n, s in scores.items()},
        "score against shift; share of 2 s runs that peak within one frame of 0",
    )
    plots.write_png(out / "score_by_shift.png", picture)
    report = {
        "expert": expert.NAME,
        "learnt_from": {c.name: r.train[1] for c, r in zip(clips, ranges, strict=True)},
        "best_step": fitted.step,
        "seconds": round(seconds, 1),
        "calibration": [float(v) for v in fitted.variables["calibration"]],
        "history": fitted.history,
        "clips": scores,
    }
    with whole(out / "report.json") as part:
        part.write_text(json.dumps(report, indent=1))
    return report


def sync_clip(folder: os.PathLike | str) -> examples.SyncClip:
    """A processed folder as the expert's training takes it."""
    clip = open_clip(folder)
    return examples.sync_clip(clip, video.read_wav(clip.path / "audio.wav"))


def _fit_with_bar(clips, steps, seed):
    with progress(desc="fit", total=steps, unit="step") as bar:

        def show(row):
            bar.update(row["step"] - bar.n)
            bar.set_postfix(train=f"{row['train']:.2f}", held_out=f"{row['held_out']:.2f}")

        return fit.fit(clips, steps, seed, show)


def _scores(variables, clip, start, stop):
    similar = fit.cosines(variables, clip, start, stop)
    return shift_scores.summary(np.asarray(expert.probability(variables, similar)))
