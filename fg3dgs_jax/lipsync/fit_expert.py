"""Fits the lip-sync expert to videos or processed folders and reports what it is worth.

It is tried at all shifts of the sound on what it did not learn from: on held-out speakers, or the
ends of clips where speakers are few, and on clips of speakers that are given for that only.
"""

import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.experts.audio import lip_prior
from fg3dgs_jax.lipsync import expert, fit, lip_clips, shift_scores, sync_clips
from fg3dgs_jax.lipsync.examples import SyncClip
from fg3dgs_jax.media import plots
from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import faults

STEPS = 900
DRAWN = 10  # clips in the picture of curves


class Sources(NamedTuple):
    """The videos or processed folders that an expert is made of."""

    data: Sequence[os.PathLike | str]  # to learn from
    unseen: Sequence[os.PathLike | str] = ()  # to try it on only
    speakers: os.PathLike | str | None = None  # see `lip_clips.speakers_of`


class Lags(NamedTuple):
    """What a lip prior found about clips, by name."""

    late: Mapping[str, float]  # s by which the sound is late
    left_out: Sequence[str]  # whose lips do not fit their sound


def fit_expert(sources: Sources, out: os.PathLike | str, steps: int = STEPS, seed: int = 0) -> dict:
    """Trains one expert; writes `sync_expert.npz`, `sync_expert.json` and `score_by_shift.png`.

    Clips are brought into step first, by the lags that a fitted prior found (`lip_prior.json` in
    OUT), else by what `av_offset` measures with certainty. What was read of videos is kept in
    OUT/clips, so that the next fit is quick.

    Args:
      sources: the clips.
      out: the folder to write.
      steps: at most so many.
      seed: of everything random.

    Returns:
      What `sync_expert.json` holds.

    Raises:
      ValueError: no clip can be used, or two have one name. One line.
    """
    out = pathlib.Path(out)
    if steps < 1:
        raise ValueError(f"--steps is {steps}; expected 1 or more")
    names = [pathlib.Path(p).resolve().stem for p in (*sources.data, *sources.unseen)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(
            f"more than one clip is called {', '.join(twice)}; expected every clip once, each "
            "under its own name"
        )
    lags = read_lags(out)
    of = lip_clips.speakers_of(sources.data, sources.speakers)
    data = [p for p in sources.data if pathlib.Path(p).resolve().stem not in lags.left_out]
    clips, unread = read_clips(data, lags, out / "clips")
    strangers, unread_too = read_clips(sources.unseen, lags, out / "clips")
    if short := [c.name for c in strangers.values() if len(c.mouths) < fit.JUDGED]:
        raise ValueError(
            f"--unseen: {', '.join(short)} cannot be judged; expected {fit.JUDGED} frames or more"
        )
    speakers = [of[path] for path in clips]
    ranges = fit.plan([len(c.mouths) for c in clips.values()], speakers, seed)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    fitted = _fit_with_bar(list(clips.values()), ranges, steps, seed)
    seconds = time.perf_counter() - start
    expert.save(out / f"{expert.NAME}.npz", fitted.variables)
    scores = {}
    for clip, part in zip(clips.values(), ranges, strict=True):
        if part.test[1] - part.test[0] >= fit.JUDGED:
            which = "end, unseen" if part.train[1] else "speaker held out"
            scores[f"{clip.name} ({which})"] = _scores(fitted.variables, clip, *part.test)
    for clip in strangers.values():
        key = f"{clip.name} (speaker unseen)"
        scores[key] = _scores(fitted.variables, clip, 0, len(clip.mouths))
    if scores:
        plots.write_png(out / "score_by_shift.png", _picture(scores))
    learnt = [(c, s, r) for c, s, r in zip(clips.values(), speakers, ranges, strict=True)]
    learnt = [(c, s, r.train[1]) for c, s, r in learnt if r.train[1]]
    report = {
        "expert": expert.NAME,
        "learnt_from": {clip.name: frames for clip, _, frames in learnt},
        "speakers": len({speaker for _, speaker, _ in learnt}),
        "best_step": fitted.step,
        "seconds": round(seconds, 1),
        "calibration": [float(v) for v in fitted.variables["calibration"]],
        "history": fitted.history,
        "clips": scores,
        "left_out": [n for n in names if n in lags.left_out],
        "unread": unread | unread_too,
    }
    with whole(out / f"{expert.NAME}.json") as part:
        part.write_text(json.dumps(report, indent=1))
    return report


def read_lags(out: os.PathLike | str) -> Lags:
    """What the prior in a folder found about its clips; nothing where there is none."""
    path = pathlib.Path(out) / f"{lip_prior.NAME}.json"
    if not path.is_file():
        return Lags({}, ())
    report = json.loads(path.read_text())
    # A lag is how many frames the lips come after the sound: negative where the sound is late.
    late = {name: -clip["lag"] / FPS for name, clip in report["clips"].items()}
    return Lags(late, report["left_out"])


def read_clips(
    paths: Sequence[os.PathLike | str], lags: Lags, cache: os.PathLike | str
) -> tuple[dict[str, SyncClip], dict[str, str]]:
    """Reads clips in step, {path: clip}, and says of those that cannot be used why: {path: reason}.

    Args:
      paths: of videos or processed folders.
      lags: by which their sound is moved.
      cache: see `sync_clips.read`.

    Raises:
      ValueError: none of them can be used.
    """
    clips, unread = {}, {}
    for path in progress(paths, desc="mouths and sound", unit="clip"):
        try:
            recorded = sync_clips.read(path, cache)
        except (ValueError, OSError) as error:
            if faults.is_full(error):  # it is not the clip's fault
                raise
            unread[str(path)] = " ".join(str(error).split())
            continue
        clips[str(path)] = sync_clips.sync_clip(recorded, lags.late.get(recorded.name))
    if paths and not clips:
        raise ValueError(f"no clip can be used: {next(iter(unread.values()))}")
    for reason in unread.values():
        print(f"left out: {reason}", file=sys.stderr)
    return clips, unread


def _fit_with_bar(clips, ranges, steps, seed):
    with progress(desc="fit", total=steps, unit="step") as bar:

        def show(row):
            bar.update(row["step"] - bar.n)
            bar.set_postfix(train=f"{row['train']:.2f}", held_out=f"{row['held_out']:.2f}")

        return fit.fit(clips, ranges, steps, seed, show)


def _picture(scores):
    drawn = list(scores.items())[-DRAWN:]
    return plots.plot_by_shift(
        {f"{n}: {s['aligned']:.0%} of {s['runs']}": s["curve"] for n, s in drawn},
        "score against shift; share of 2 s runs that peak within one frame of 0",
    )


def _scores(variables, clip, start, stop):
    similar = fit.cosines(variables, clip, start, stop)
    return shift_scores.summary(np.asarray(expert.probability(variables, similar)))
