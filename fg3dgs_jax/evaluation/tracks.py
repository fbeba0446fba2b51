"""Where the speaking face is, frame by frame: a detector's boxes joined.

Boxes are x0, y0, x1, y1 in px.
"""

from collections.abc import Sequence

import numpy as np

# Intersection over union with the box before, above which it is the same face.
SAME_FACE = 0.5
# Frames from one detection to the next, beyond which the track has ended.
MAX_STEP = 25


def longest_track(
    detections: Sequence[Sequence[np.ndarray] | np.ndarray],
) -> tuple[int, np.ndarray] | None:
    """Returns the track of the face that is detected in most frames.

    As in the protocol of LSE, a track takes in each frame the first face that overlaps its last box
    by more than half. It may miss the face for less than 25 frames, and is interpolated there.

    Args:
      detections: T arrays [N, >= 4], best first, N may be 0.

    Returns:
      (first frame, boxes [n, 4] of that frame and those after it), or None without any face.
    """
    remaining = [[np.asarray(box[:4], np.float64) for box in boxes] for boxes in detections]
    longest: list[tuple[int, np.ndarray]] = []
    for start, boxes in enumerate(remaining):
        while boxes:
            track = [(start, boxes.pop(0))]
            for frame in range(start + 1, len(remaining)):
                last_frame, last = track[-1]
                if frame - last_frame > MAX_STEP:
                    break
                same = [
                    i for i, box in enumerate(remaining[frame]) if overlap(box, last) > SAME_FACE
                ]
                if same:
                    track.append((frame, remaining[frame].pop(same[0])))
            longest = max(longest, track, key=len)
    if not longest:
        return None
    frames = np.array([frame for frame, _ in longest])
    boxes = np.stack([box for _, box in longest])
    every = np.arange(frames[0], frames[-1] + 1)
    return int(frames[0]), np.stack([np.interp(every, frames, side) for side in boxes.T], 1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the intersection over union of two boxes [4]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0.0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))
