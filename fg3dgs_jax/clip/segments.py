"""Which few seconds of a clip show the most: for a first trial in a fraction of the time."""

import numpy as np

BINS = 10  # of each score, between its least and its greatest value


def most_informative(scores: np.ndarray, seconds: float, fps: float) -> slice:
    """The run of frames in which most of what the clip shows is seen.

    A run is worth the share of each score's range that it covers (mouth shut to wide, eyes open to
    shut, head left to right...); of runs worth the same, the one in which the rarest values are
    seen most often.

    Args:
      scores: [T, S], what differs between frames, one column each.
      seconds: length of the run; 0, or more than there is: everything.
      fps: rows of the scores a second.
    """
    scores = np.asarray(scores, np.float64)
    count = round(seconds * fps) or len(scores)
    if count >= len(scores):
        return slice(0, len(scores))
    low, high = scores.min(0), scores.max(0)
    bins = ((scores - low) / np.maximum(high - low, 1e-9) * BINS).astype(int).clip(max=BINS - 1)
    in_bin = (bins[:, :, None] == np.arange(BINS)).astype(np.float64)  # [T, S, bins]
    totals = np.concatenate([np.zeros((1, *in_bin.shape[1:])), in_bin.cumsum(0)])
    within = totals[count:] - totals[:-count]  # [starts, S, bins] frames of each bin
    covered = (within > 0).sum((1, 2))
    rarest = (within / np.maximum(totals[-1], 1.0)).sum((1, 2)) / scores.shape[1] / BINS
    start = int(np.argmax(covered + rarest))  # the share is below 1: it decides between equals
    return slice(start, start + count)
