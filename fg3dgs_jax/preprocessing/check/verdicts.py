"""Is this video fit to make an avatar of? A table of verdicts with advice, before the long work.

They are made from a sample of the video (`check/sample.py`).
"""

import cv2
import numpy as np

from fg3dgs_jax.clip.landmarks import LEFT_EYE, RIGHT_EYE
from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.preprocessing.check import file_rows, sound_rows
from fg3dgs_jax.preprocessing.check.rows import Row, conclusion, graded, table
from fg3dgs_jax.preprocessing.check.sample import (
    BLANK,
    BOTTOM,
    TOP,
    Evidence,
    cuts_in,
    face_heights,
    follows,
)
from fg3dgs_jax.preprocessing.track.head_pose import rotation_vectors

__all__ = ["Row", "check", "conclusion", "count_blinks", "table"]

OTHER_SCENE = 32.0  # mean grey levels between thumbs of frames far apart
ENOUGH = 0.5  # share of the video that one scene should have
FACE_PX = 192  # the size at which sharpness is judged: detail per face, not per pixel
SURE = 0.25  # response of the phase correlation of corners that show the same
CLOSED = 0.6  # of the usual gap between the lids
HAIR = 1.33  # from chin to the top of the hair, in heights of the face

_LIDS = ((159, 145, 33, 133), (386, 374, 362, 263))  # upper, lower, corners


def check(e: Evidence) -> list[Row]:
    """The table."""
    has_face = e.num_faces > 0
    rows = [*file_rows.file_rows(e), _in_view(e)]
    if has_face.mean() >= 0.2:
        rows += [
            _others(e),
            _face(e, has_face),
            _framing(e, has_face),
            _sharpness(e, has_face),
            _light(e, has_face),
            _turn(e, has_face),
            _blinks(e, has_face),
        ]
    rows += [_scene(e), _camera(e), *sound_rows.sound_rows(e)]
    if has_face.mean() >= 0.2:
        rows.append(sound_rows.step_row(e, has_face))
    return rows


def _in_view(e):
    share = float(np.mean(e.num_faces > 0))
    advice = "--start and --end leave out parts without a face; single frames are interpolated"
    return graded("face in view", f"{share:.0%} of the frames", share, (0.98, 0.5), advice)


def _others(e):
    share = float(np.mean(e.num_faces > 1))
    advice = "one person only: --start and --end leave others out, or crop them out"
    return graded("second faces", f"{share:.0%} of the frames", -share, (-0.01, -0.2), advice)


def _face(e, has_face):
    height = float(np.median(face_heights(e.pixels[has_face])))
    shown = height / (e.window[2] if e.window is not None else e.size[0])
    measured = f"{height:.0f} px high, {shown:.0%} of the picture"
    row = graded("face size", measured, height, (180, 90), "film nearer or in a higher resolution")
    if row.verdict != "bad" and shown < 0.25:
        return row._replace(verdict="usable", advice="--size 512 crops to the head")
    return row


def _framing(e, has_face):
    """Room about the head, in shares of the picture's height, at the worst of 20 frames."""
    points, heights = e.pixels[has_face], face_heights(e.pixels[has_face])
    hair = points[:, BOTTOM, 1] - HAIR * heights
    room = {
        "hair": hair,
        "left side": points[..., 0].min(1) - 0.15 * heights,
        "right side": e.size[1] - points[..., 0].max(1) - 0.15 * heights,
        "chin": e.size[0] - points[:, BOTTOM, 1] - 0.1 * heights,
    }
    room = {name: float(np.percentile(r, 5)) / e.size[0] for name, r in room.items()}
    tight = [name for name, r in room.items() if r < 0.015]
    measured = f"{' and '.join(tight)} cut or close to it" if tight else "whole head in the picture"
    least = min(room.values())
    return graded("framing", measured, least, (0.015, -0.1), "leave room about the whole head")


def _sharpness(e, has_face):
    values = []
    for part, _ in _face_parts(e, has_face):
        way = cv2.INTER_AREA if len(part) > FACE_PX else cv2.INTER_CUBIC
        face = cv2.resize(part, (FACE_PX, FACE_PX), interpolation=way).astype(np.float32)
        fine, coarse = (cv2.GaussianBlur(face, (0, 0), s) for s in (1.0, 4.0))
        values.append((face - fine).std() / max((fine - coarse).std(), 0.1))
    if not values:
        return Row("sharpness", "no whole face seen", "unknown", "leave room about the whole head")
    value = float(np.median(values))
    advice = "focus on the eyes, clean the lens, add light, less compression"
    return graded("sharpness", f"{value:.2f} (0.28 is good)", value, (0.28, 0.19), advice)


def _light(e, has_face):
    parts = [(p[oval > 0], p) for p, oval in _face_parts(e, has_face)]
    if not parts:
        return Row("light", "no whole face seen", "unknown", "leave room about the whole head")
    mean = np.array([inside.mean() for inside, _ in parts])
    burnt = np.mean([(inside >= 250).mean() for inside, _ in parts])
    change = float(mean.std() / mean.mean())
    measured = f"face {mean.mean():.0f} of 255, {burnt:.0%} burnt out, varies by {change:.0%}"
    if mean.mean() < 35 or burnt > 0.15 or change > 0.15:
        verdict = "bad"
    elif mean.mean() < 60 or burnt > 0.03 or change > 0.05:
        verdict = "usable"
    else:
        return Row("light", measured, "good", "")
    dark = "soft light from the front" if mean.mean() < 60 else "less light on the face"
    return Row("light", measured, verdict, "lock the exposure" if change > 0.05 else dark)


def _turn(e, has_face):
    degrees = np.degrees(rotation_vectors(e.rotation[has_face].astype(np.float64)))
    low, high = np.percentile(degrees, (2, 98), axis=0)
    measured = (
        f"nods {low[0]:+.0f} to {high[0]:+.0f}, turns {low[1]:+.0f} to {high[1]:+.0f} degrees"
    )
    most = float(np.abs([low, high])[:, :2].max())
    return graded("head range", measured, -most, (-30, -50), "look towards the camera")


def _blinks(e, has_face):
    number, seconds = count_blinks(e.pixels[has_face], e.frames[has_face]), has_face.sum() / FPS
    measured = f"{number} in {seconds:.0f} s"
    return graded("blinks", measured, number, (1, 0), "few or none: blink as usual while filming")


def count_blinks(pixels: np.ndarray, frames: np.ndarray) -> int:
    """How often both eyes close, in landmarks [N, 478, 2] of the frames numbered [N]."""

    def gap(a, b):
        return np.linalg.norm(pixels[:, a] - pixels[:, b], axis=-1)

    eyes = [gap(a, b) / np.maximum(gap(c, d), 1e-6) for a, b, c, d in _LIDS]
    open_ = np.max([eye / np.median(eye) for eye in eyes], 0)
    shut = open_ < CLOSED
    begins = shut[1:] & (~shut[:-1] | (np.diff(frames) > 1))
    return int(begins.sum() + shut[0])


def _scene(e):
    pieces = np.split(e.thumbs, np.flatnonzero(~follows(e.frames)) + 1)
    cuts = sum(len(list(cuts_in(piece))) for piece in pieces)
    firsts = [piece[0] for piece in pieces if piece[0].std() >= BLANK]
    others = sum(float(np.abs(b - firsts[0]).mean()) > OTHER_SCENE for b in firsts[1:])
    looked_at = len(e.frames) / FPS
    measured = f"{cuts or 'none'} in the {looked_at:.0f} s looked at"
    measured += f", {others} samples show another scene" if others else ""
    if not cuts + others:
        return Row("cuts", measured, "good", "")
    measured += f"; the longest scene has {e.own:.0%} of the time"
    advice = "the scene seen longest is used: --start and --end choose another"
    return Row("cuts", measured, "usable" if e.own >= ENOUGH else "bad", advice)


def _camera(e):
    """The upper corners against their first picture; a camera that moves moves both.

    In one of them a head that comes near may move by itself.
    """
    rows, columns = e.size[0] // 4, e.size[1] // 5
    window = cv2.createHanningWindow((columns, rows), cv2.CV_32F)
    corners = (np.s_[:rows, :columns], np.s_[:rows, -columns:])
    first, *others = (g.astype(np.float32) for g in e.greys.values())
    moves = []
    for grey in others:
        shifts = [cv2.phaseCorrelate(first[c], grey[c], window) for c in corners]
        sure = [
            np.hypot(shift[0], shift[1]) / e.size[0]
            for shift, response in shifts
            if response > SURE
        ]
        moves += [min(sure)] if sure else []
    if len(moves) < 3:
        advice = "too little behind the head to tell: see that the camera is on a stand"
        return Row("camera", "not certain", "unknown", advice)
    move, least = float(np.percentile(moves, 75)), max(0.004, 1 / e.size[0])
    measured = "fixed" if move <= least else f"moves by {move:.1%} of the picture"
    return graded("camera", measured, -move, (-least, -0.02), "put the camera on a stand")


def _face_parts(e, has_face):
    """(grey square about the face, mask of the skin oval in it) of the pictures kept."""
    for row, grey in e.greys.items():
        if not has_face[row]:
            continue
        points = e.pixels[row]
        height = face_heights(points[None])[0]
        x, y = (points[TOP] + points[BOTTOM]) / 2
        x0, y0, side = int(x - height / 2), int(y - height / 2), int(height)
        if min(x0, y0) < 0 or x0 + side > grey.shape[1] or y0 + side > grey.shape[0] or side < 16:
            continue
        oval = np.zeros((side, side), np.uint8)
        hull = cv2.convexHull(np.rint(points - (x0, y0)).astype(np.int32))
        cv2.fillConvexPoly(oval, hull, 1)
        for eye in (LEFT_EYE, RIGHT_EYE):
            lids = (points[list(eye)] - (x0, y0)).astype(np.int32)
            cv2.fillConvexPoly(oval, cv2.convexHull(lids), 0)
        yield grey[y0 : y0 + side, x0 : x0 + side], oval
