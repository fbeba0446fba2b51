"""Labels that keep still: a vote over neighbouring frames in the head's own frame.

A parser looks at one frame at a time, so that the borders of hair, ears and neck shimmer. A
shimmering border is a shimmering seam in the trained head. Here the neighbours' labels are moved by
the motion of the skull's landmarks. Every pixel of the head takes the class that most of the window
gives it. The window is symmetric, so that nothing lags, and ends at a cut. What speech and
blinks move (lips, mouth, teeth, eyes, brows) and the nose keep the outlines of their own frame.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from fg3dgs_jax.clip import over_time
from fg3dgs_jax.clip.format import HEAD_LABELS, LABELS, MOUTH_LABELS
from fg3dgs_jax.preprocessing.label.from_landmarks import Parsed
from fg3dgs_jax.preprocessing.track.head_pose import RIGID

REACH = 2  # frames to each side
FEATURES = tuple(
    LABELS[n]
    for n in (
        "left_brow",
        "right_brow",
        "left_eye",
        "right_eye",
        "nose",
        "mouth",
        "upper_lip",
        "lower_lip",
        "teeth",
    )
)
HEAD_PARTS = tuple(k for k in HEAD_LABELS if k not in FEATURES)  # voted on in the head's frame
BODY_PARTS = tuple(LABELS[n] for n in ("neck", "necklace", "cloth"))  # voted on where they are
SPECK = 4e-4  # of the picture: smaller pieces of a part are given to what surrounds them
_LOOKS_LIKE = np.arange(256, dtype=np.uint8)  # skin lies behind the drawn features
_LOOKS_LIKE[list(FEATURES)] = LABELS["skin"]
_IS_FEATURE = np.isin(np.arange(256), FEATURES).astype(np.uint8)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 [2, 3]: turn, scale and shift that best move points [P, 2] px onto others."""
    a, b = (np.asarray(p, np.float64) @ (1, 1j) for p in (source, target))
    from_mean, to_mean = a - a.mean(), b - b.mean()
    gain = np.vdot(from_mean, to_mean) / np.vdot(from_mean, from_mean).real
    shift = b.mean() - gain * a.mean()
    return np.array([[gain.real, -gain.imag, shift.real], [gain.imag, gain.real, shift.imag]])


def smooth(
    parsed: Iterable[Parsed], points: np.ndarray, reach: int = REACH, cuts: Sequence[int] = ()
) -> Iterator[Parsed]:
    """Yields each frame's `Parsed` with labels voted over frames t - reach to t + reach.

    Holds 2 reach + 1 frames, however long the clip is.

    Args:
      parsed: iterable of T `Parsed`, in order; their alphas stay as they are.
      points: float [T, 478, 2] px.
      reach: frames to each side that vote.
      cuts: the frames that begin another scene.
    """
    window, first, count = collections.deque(), 0, len(points)
    rigid = np.asarray(points)[:, RIGID] - 0.5  # OpenCV's pixel centres are whole numbers
    scene = over_time.scenes(count, cuts)
    source = iter(parsed)
    for t in range(count):
        while first + len(window) < min(t + reach + 1, count):
            window.append(next(source))
        while first < t - reach:
            window.popleft()
            first += 1
        voters = [
            (one.labels, similarity(rigid[first + n], rigid[t]), reach + 1 - abs(first + n - t))
            for n, one in enumerate(window)
            if scene[first + n] == scene[t]
        ]
        here = window[t - first]
        yield Parsed(vote(here.labels, voters), here.alpha)


def flicker(labels: np.ndarray, points: np.ndarray, classes: Sequence[int]) -> float | None:
    """How much of a part is there and back within three frames, in [0, 1].

    It is the share of its area where the frame in the middle disagrees with both others, once these
    are moved by the skull's landmarks. True motion goes on, flicker returns. None if hardly seen.

    Args:
      labels: uint8 [3, H, W].
      points: float [3, 478, 2] px.
      classes: the labels that make the part.
    """
    rigid = np.asarray(points)[:, RIGID] - 0.5
    before, after = (
        np.isin(_moved(labels[k], similarity(rigid[k], rigid[1]), cv2.INTER_NEAREST), classes)
        for k in (0, 2)
    )
    here = np.isin(labels[1], classes)
    flipped = (before == after) & (before != here)
    return float(flipped.sum() / here.sum()) if here.sum() > 20 else None


def without_specks(labels: np.ndarray, classes: Sequence[int], area: float) -> np.ndarray:
    """uint8 [H, W]: pieces of `classes` under `area` px take the commonest label around them."""
    out = labels.copy()
    for k in classes:
        mask = (labels == k).astype(np.uint8)
        box = _widened(cv2.boundingRect(mask))
        if not mask[box].any():
            continue
        _, parts, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask[box]))
        for n in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < area):
            near = _widened(stats[n, :4])
            piece, here = (parts[near] == n).astype(np.uint8), out[box][near]
            around = here[cv2.dilate(piece, np.ones((5, 5), np.uint8)) > piece]
            around = around[_IS_FEATURE[around] == 0]  # the drawn features do not spread
            here[piece > 0] = np.bincount(around).argmax() if around.size else LABELS["skin"]
    return out


def _widened(rectangle, margin=2):
    """(x, y, width, height) px -> slices of rows and columns, `margin` wider on each side."""
    x, y, w, h = map(int, rectangle)
    return np.s_[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin]


def vote(labels: np.ndarray, voters: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> np.ndarray:
    """uint8 [H, W]: one frame's labels by majority of its neighbours and itself.

    Args:
      labels: uint8 [H, W].
      voters: (labels [H, W], their motion [2, 3] px to this frame, whole weight) of each frame.
    """
    plain = [cv2.LUT(them, _LOOKS_LIKE) for them, _, _ in voters]
    present = set().union(
        *(np.flatnonzero(cv2.calcHist([p], [0], None, [256], [0, 256])) for p in plain)
    )
    unit = 255 // sum(weight for *_, weight in voters)
    head = {k: _tally(plain, voters, k, unit, True) for k in HEAD_PARTS if k in present}
    still = (k for k in (0, *BODY_PARTS) if k in present)
    out = _winner({k: _tally(plain, voters, k, unit, False) for k in still}, labels.shape)
    inside = np.zeros_like(labels)
    for votes in head.values():
        inside = cv2.add(inside, votes)
    majority = unit * sum(weight for *_, weight in voters) // 2
    cv2.copyTo(_winner(head, labels.shape), (inside > majority).astype(np.uint8), out)
    out = without_specks(out, (*HEAD_PARTS, *BODY_PARTS), SPECK * labels.size)
    cv2.copyTo(labels, cv2.LUT(labels, _IS_FEATURE), out)
    if LABELS["teeth"] in labels:
        _vote_on_teeth(out, voters, unit)
    return out


def _vote_on_teeth(out, voters, unit):
    """Upper teeth sit in the skull: inside the mouth of `out`, tooth or not is voted on too."""
    box = cv2.boundingRect(np.isin(out, MOUTH_LABELS).astype(np.uint8))
    near = np.s_[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
    raw = [them for them, _, _ in voters]
    teeth, inside = (_tally(raw, voters, LABELS[n], unit, True)[near] for n in ("teeth", "mouth"))
    part = out[near]
    part[np.isin(part, MOUTH_LABELS)] = LABELS["mouth"]
    part[(part == LABELS["mouth"]) & (teeth > inside)] = LABELS["teeth"]


def _tally(pictures, voters, k, unit, moves):
    """uint8 [H, W]: `unit` times the weights of the frames that have class `k` at a pixel."""
    total = np.zeros_like(pictures[0])
    table = np.zeros(256, np.uint8)
    for picture, (_, move, weight) in zip(pictures, voters, strict=True):
        table[k] = unit * weight
        votes = cv2.LUT(picture, table)
        total = cv2.add(total, _moved(votes, move, cv2.INTER_LINEAR) if moves else votes)
    return total


def _winner(votes, shape):
    """uint8 [H, W]: of {class: votes [H, W]} the class with the most."""
    out, best = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for k, of_k in votes.items():
        cv2.copyTo(np.full(shape, k, np.uint8), cv2.compare(of_k, best, cv2.CMP_GT), out)
        best = cv2.max(best, of_k)
    return out


def _moved(image, move, how):
    """An image [H, W] under an affine motion [2, 3] px; its border goes on outside."""
    size = image.shape[::-1]
    return cv2.warpAffine(image, move, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
