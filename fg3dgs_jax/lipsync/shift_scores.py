"""The scores of our own lip-sync expert against shifts of the sound. They are not LSE."""

import numpy as np

from fg3dgs_jax.lipsync.expert import FRAMES

REACH = 15  # frames
SPAN = 50  # frames of a window whose mean score is looked at, two seconds
CLOSE = 1  # frame: a peak not further from 0 is at the true alignment


def by_shift(similar: np.ndarray, reach: int = REACH) -> np.ndarray:
    """[V, V] scores of mouth windows and sound windows -> [V, 2 reach + 1].

    Column `reach + o` is the mouth's window v with the sound o frames later; NaN outside.
    """
    similar = np.asarray(similar, np.float64)
    count = len(similar)
    other = np.arange(count)[:, None] + np.arange(-reach, reach + 1)
    inside = (other >= 0) & (other < count)
    values = np.take_along_axis(similar, np.clip(other, 0, count - 1), 1)
    return np.where(inside, values, np.nan)


def curves(similar: np.ndarray, span: int = SPAN, reach: int = REACH) -> np.ndarray:
    """[V, V] -> [N, 2 reach + 1]: mean score against shift in every run of `span` frames.

    A mean is over the pairs that are there, at least half of them by the choice of `reach`; a clip
    that is shorter than the span is one run.
    """
    scores = by_shift(similar, reach)
    length = min(span - FRAMES + 1, len(scores))
    runs = np.lib.stride_tricks.sliding_window_view(scores, length, axis=0)
    counted = np.isfinite(runs)
    return np.where(counted, runs, 0.0).sum(-1) / np.maximum(counted.sum(-1), 1)


def summary(similar: np.ndarray) -> dict:
    """What the score says of a part of a clip.

    Returns "frames"; "score": its mean without a shift; "runs" of two seconds; "aligned": the share
    of them whose score peaks within a frame of the true alignment; "steady": within a frame of
    "peak": frames by which the sound at the best score lies after the picture, over the whole part;
    "contrast": score there above the median over shifts; "curve": score at shifts of -15 to 15.
    """
    runs = curves(similar)
    middle = runs.shape[1] // 2
    peaks = runs.argmax(1) - middle
    whole = np.nanmean(by_shift(similar), 0)
    peak = int(whole.argmax()) - middle
    return {
        "frames": len(similar) + FRAMES - 1,
        "score": float(whole[middle]),
        "runs": len(runs),
        "aligned": float(np.mean(np.abs(peaks) <= CLOSE)),
        "steady": float(np.mean(np.abs(peaks - peak) <= CLOSE)),
        "peak": peak,
        "contrast": float(whole.max() - np.median(whole)),
        "curve": [round(float(v), 4) for v in whole],
    }
