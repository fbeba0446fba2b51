"""Which frames of a clip show its person in its scene: the scene seen longest, with one face.

A clip is cut into pieces wherever something may begin: at a cut, where the picture or the face
changes within a second, where the face jumps or is long unseen. Pieces that show the same room and
the same face belong together. The pieces that belong together and have most frames are the scene.
Frames in it that do not look like it (a fade, a dissolve, a flash) are left out one by one.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.preprocessing.check.sample import BLANK, face_heights
from fg3dgs_jax.preprocessing.scene.looks import Looks, apart, faces_apart

ROOM = 12.0  # `apart` of two pieces of other scenes; a vivid speaker in a tight frame makes 11
PERSON = 2.1  # `faces_apart` of other persons
JUMP = 0.5  # of the face's height from one frame to the next: no head is so quick
LONG = FPS  # frames without a face that are not bridged
LEAST = 2 * FPS  # frames of a scene that is worth a hint
SHORT = 5  # frames: a shorter run is of no use
AWAY, NEAR = 12, 20  # frames before and after the place at which a change is looked for
OFF = 10.0  # grey levels off the scene in its still parts
FLATTER = 0.35  # natural logarithm of the contrast, against the scene's
SETTLED = (1.0, 0.03)  # grey levels and contrast within which a fade has ended
FADE = 2 * FPS  # frames that a fade may last on
FADED = 0.8  # correlation with the scene of a picture that is the scene, only darker or lighter
BLOCK = 1000  # frames looked at together
CANDIDATES = 12  # pieces that may be the middle of the scene


class Span(NamedTuple):
    """Frames in a row."""

    first: int
    stop: int  # the last one + 1
    why: str  # "blank", "fade", "no face", "too short", "another scene" or "another face"


class _Piece(NamedTuple):
    frames: slice
    room: np.ndarray  # [P] grey
    face: np.ndarray | None  # [18, 24, 3]
    weight: float  # of its frames with a face


class Seen(NamedTuple):
    """What is known of T frames."""

    looks: Looks
    pixels: np.ndarray  # [T, 478, 2] px, landmarks
    valid: np.ndarray  # bool [T], frames with a face
    cuts: Sequence[int] = ()  # frames that begin another scene


def choose(seen: Seen, weights: np.ndarray | None = None) -> list[Span]:
    """The frames that are not the person's own, in their order, with the reason.

    Args:
      seen: the frames.
      weights: [T], how much each counts. None: all the same.
    """
    thumbs, count = seen.looks.thumbs, len(seen.valid)
    rooms = thumbs.reshape(count, -1)
    blank = rooms.std(1) < BLANK
    face = seen.valid & ~blank
    weights = np.ones(count) if weights is None else weights
    pieces = _pieces(seen, rooms, face, weights)
    if not pieces:
        return []
    scene = _scene(pieces)
    own = np.zeros(count, bool)
    for piece in scene:
        own[piece.frames] = True
    own &= ~blank
    strange, faded = _strange(rooms, own)
    own &= ~strange
    whole, own = own, _with_faces(own, face)
    why = np.full(count, "another scene", object)
    middle = scene[0].room
    for piece in pieces:
        if apart(piece.room, middle) < ROOM:
            why[piece.frames] = "another face"
    why[whole & ~own] = "too short"
    why[~face & ~strange] = "no face"
    why[strange & faded] = "fade"
    why[strange & ~faded] = "another scene"
    why[blank] = "blank"
    why[own] = ""
    return [span for span in _spans(_without_moments(why)) if span.why]


def _spans(why):
    """`Span`s of equal reasons [T], the empty one too."""
    edges = [0, *(np.flatnonzero(why[1:] != why[:-1]) + 1), len(why)]
    return [Span(int(a), int(b), str(why[a])) for a, b in itertools.pairwise(edges)]


def _without_moments(why):
    """Reasons [T]: what is seen for a moment beside a fade is a part of it."""
    spans = _spans(why)
    for one, other in [*itertools.pairwise(spans), *itertools.pairwise(spans[::-1])]:
        brief = other.stop - other.first < SHORT and other.why not in ("", "blank")
        if one.why == "fade" and brief:
            why[other.first : other.stop] = "fade"
    return why


def others(
    spans: Sequence[Span], valid: np.ndarray, cuts: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """(first frame, last + 1) of other scenes that could be taken instead, the longest first.

    Args:
      spans: what `choose` left out.
      valid: bool [T], frames with a face.
      cuts: frames that begin another scene.
    """
    parts = []
    for span in spans:
        if span.why not in ("another scene", "another face"):
            continue
        edges = [span.first, *(c for c in cuts if span.first < c < span.stop), span.stop]
        parts += itertools.pairwise(edges)
    parts = [(a, b) for a, b in parts if b - a >= LEAST and valid[a:b].mean() > 0.5]
    return sorted(parts, key=lambda part: part[0] - part[1])


def _pieces(seen, rooms, face, weights):
    """The `_Piece`s that show a face."""
    borders = sorted({0, len(face), *_borders(seen, rooms, face)})
    pieces = []
    for first, stop in itertools.pairwise(borders):
        shown = first + np.flatnonzero(face[first:stop])
        if not len(shown):
            continue
        some = shown[np.linspace(0, len(shown) - 1, min(60, len(shown))).astype(int)]
        look = None
        if seen.looks.faces is not None:
            look = np.median(seen.looks.faces[some], 0)
        room = np.median(rooms[some], 0)
        pieces.append(_Piece(slice(first, stop), room, look, float(weights[shown].sum())))
    return pieces


def _borders(seen, rooms, face):
    """Frames at which something else may begin; one too many does no harm."""
    yield from map(int, seen.cuts)
    shown = np.flatnonzero(face)
    centres = seen.pixels[shown].mean(1)
    heights = np.maximum(face_heights(seen.pixels[shown]), 1e-6)
    moves = np.linalg.norm(np.diff(centres, axis=0), axis=-1) / heights[1:]
    yield from map(int, shown[1:][moves > JUMP])
    for first, stop in _runs(~face):
        if stop - first > LONG:
            yield from (first, stop)
    small = seen.looks.thumbs[:, ::2, ::2].reshape(len(face), -1)
    yield from _changes(small, lambda a, b: apart(a, b) > ROOM)
    if seen.looks.faces is not None and len(shown):
        # Where no face is, the one before (at the beginning, the one after) is.
        last = np.maximum(np.searchsorted(shown, np.arange(len(face)), "right") - 1, 0)
        held = seen.looks.faces[shown[last]]
        shape = held.shape[1:]
        yield from _changes(
            held.reshape(len(face), -1),
            lambda a, b: faces_apart(a.reshape(-1, *shape), b.reshape(-1, *shape)) > PERSON,
        )


def _changes(values, differ):
    """Frames at which rows [T, D] a second apart differ: of each run of such the steepest one."""
    count = len(values)
    differs, step = np.zeros(count, bool), np.zeros(count)
    for first in range(1, count, BLOCK):  # for memory
        times = np.arange(first, min(first + BLOCK, count))
        low, high = max(first - NEAR, 0), min(times[-1] + NEAR, count)
        part, at = values[low:high], times - low
        sums = np.concatenate([np.zeros((1, part.shape[1])), np.cumsum(part, 0, np.float64)])
        before = _mean(sums, np.maximum(at - NEAR, 0), np.maximum(at - AWAY, 1))
        last = len(part) - 1
        after = _mean(sums, np.minimum(at + AWAY, last), np.minimum(at + NEAR, last + 1))
        differs[times] = differ(before, after)
        step[times] = np.abs(part[at].astype(np.float32) - part[at - 1]).mean(1)
    for first, stop in _runs(differs):
        yield first + int(np.argmax(step[first:stop]))


def _mean(sums, first, stop):
    """Means of rows first .. stop, [N, D], from the sums [T + 1, D] of all rows up to each."""
    return (sums[stop] - sums[first]) / (stop - first)[:, None]


def _scene(pieces):
    """Of the pieces those of the scene that is seen longest, the one in its middle first."""
    best, most = [], 0.0
    for middle in sorted(pieces, key=lambda piece: -piece.weight)[:CANDIDATES]:
        scene = _with_alike(middle, pieces)
        weight = sum(piece.weight for piece in scene)
        if weight > most:
            best, most = scene, weight
    return best


def _with_alike(middle, pieces):
    """A piece, and those in its room that show its face.

    Faces are held against each one that belongs already: a head may turn step by step.
    """
    rest = [p for p in pieces if p is not middle and apart(p.room, middle.room) < ROOM]
    scene, new = [middle], [middle]
    while new and rest:
        last = new.pop()
        more = [p for p in rest if p.face is None or faces_apart(p.face, last.face) < PERSON]
        rest = [p for p in rest if not any(p is one for one in more)]
        scene += more
        new += more
    return scene


def _strange(rooms, own):
    """Bool [T] twice: frames that do not look like the scene, and that are its own but faded.

    The edges of a fade, which look nearly like the scene, are among the first.
    """
    chosen = np.flatnonzero(own)
    some = chosen[np.linspace(0, len(chosen) - 1, min(300, len(chosen))).astype(int)]
    scene = np.median(rooms[some], 0)
    spread = np.abs(rooms[some] - scene).mean(0)
    still = spread <= np.median(spread)
    off = np.abs(rooms[:, still] - scene[still]).mean(1)
    contrast = np.log(np.maximum(rooms.std(1), 1e-3))
    contrast -= np.median(contrast[some])
    far = off > max(OFF, 5 * np.median(off[some]))
    flat = np.abs(contrast) > max(FLATTER, 5 * np.median(np.abs(contrast[some])))
    strange = far | flat
    for first, stop in _runs(own & ~strange):
        run = np.arange(first, stop)
        for inwards, beside in ((run, first - 1), (run[::-1], stop)):
            if 0 <= beside < len(own) and strange[beside]:
                strange[_fading(off[inwards], contrast[inwards], inwards)] = True
    centred = rooms - rooms.mean(1, keepdims=True)
    of_scene = scene - scene.mean()
    size = np.linalg.norm(centred, axis=1) * np.linalg.norm(of_scene)
    return strange, centred @ of_scene / np.maximum(size, 1e-6) > FADED


def _fading(off, contrast, run):
    """Of a run of frames, from its strange end on, those in which a fade still goes on."""
    reach = min(FADE, len(run) // 2)
    level, flatness = (np.median(x[reach : 2 * FADE]) for x in (off, contrast))
    settled = (off <= level + SETTLED[0]) & (np.abs(contrast - flatness) <= SETTLED[1])
    return run[: int(np.argmax(settled[:reach]))] if settled[:reach].any() else run[:reach]


def _with_faces(own, face):
    """Own frames without those at the ends of a run, or long ones in it, that show no face."""
    own = own.copy()
    for first, stop in _runs(own):
        shown = first + np.flatnonzero(face[first:stop])
        if not len(shown) or shown[-1] + 1 - shown[0] < SHORT:
            own[first:stop] = False
            continue
        own[first : shown[0]] = own[shown[-1] + 1 : stop] = False
        for a, b in _runs(~face[first:stop]):
            if b - a > LONG:
                own[first + a : first + b] = False
    return own


def _runs(flags):
    """(first, last + 1) of each run of True in flags [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
