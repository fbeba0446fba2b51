"""Action units out of a CSV file of OpenFace's FeatureExtraction, one row per frame of a clip.

Intensities (`AU01_r`, 0 to 5) and presences (`AU01_c`, 0 or 1). OpenFace begins all column names
but the first with a space; both spellings are read.
"""

import csv
import os
import pathlib
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip.over_time import bridge
from fg3dgs_jax.media.clock import FPS

_UNITS = "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26".split()
INTENSITIES = tuple(f"AU{unit}_r" for unit in (*_UNITS, "45"))
PRESENCES = tuple(f"AU{unit}_c" for unit in (*_UNITS, "28", "45"))
MAX_BLINK = 2.0  # AU45_r: a shut eye, beyond it there is nothing more to see
MIN_SUCCESS = 0.5  # of the rows must show a face
SLACK = 0.1  # s of the clip's two ends that the rows may leave out


class OpenFaceError(ValueError):
    """A file that is not such a CSV, or not of this clip; one line."""


class Track(NamedTuple):
    """The rows of one face."""

    values: np.ndarray  # float32 [R, A], intensities 0 to 5, AU45 0 to 2, presences 0 or 1
    names: tuple[str, ...]  # of the A columns: INTENSITIES, then those of PRESENCES that are there
    seconds: np.ndarray  # float64 [R], rising
    valid: np.ndarray  # bool [R]
    timed: bool  # whether the file has times, or rows are simply frames


def channels(path: os.PathLike | str, num_frames: int, start: float = 0.0) -> Track:
    """The file's action units at the frames of a clip, which begins at second `start` of the file.

    Rows with success 0 are bridged. With a column `timestamp` (s) rows are interpolated to the
    clip's times: a file of another frame rate, or of a longer clip, fits. Without it there must be
    one row per frame.

    Returns:
      A track of `num_frames` rows at 25 Hz.

    Raises:
      OpenFaceError: columns are missing, values are no numbers, faces are found too seldom, or the
        rows do not cover the clip.
    """
    path = pathlib.Path(path)
    track = read(path)
    times = start + np.arange(num_frames) / FPS
    if not track.timed:
        if len(track.seconds) != num_frames:
            raise OpenFaceError(
                f"{path} has {len(track.seconds)} rows and no timestamp column; expected "
                f"{num_frames} rows, one per frame at {FPS} frames a second"
            )
    elif track.seconds[0] > times[0] + SLACK or track.seconds[-1] < times[-1] - SLACK:
        raise OpenFaceError(
            f"{path} covers {track.seconds[0]:.2f} to {track.seconds[-1]:.2f} s; expected "
            f"{start:g} to {times[-1]:.2f} s: run FeatureExtraction on this very video"
        )
    whole = bridge(track.values, track.valid)
    # Presences are steps: they come from the nearest row, not from between two.
    nearest = np.rint(np.interp(times, track.seconds, np.arange(len(whole)))).astype(int)
    between = np.stack([np.interp(times, track.seconds, column) for column in whole.T], 1)
    steps = np.array([name in PRESENCES for name in track.names])
    values = np.where(steps, np.rint(whole[nearest]), between).astype(np.float32)
    return Track(values, track.names, times, track.valid[nearest], track.timed)


def read(path: os.PathLike | str) -> Track:
    """The rows of the file, of the face seen most often where there are several."""
    path = pathlib.Path(path)
    columns = _columns(path)
    missing = [name for name in INTENSITIES if name not in columns]
    if missing:
        raise OpenFaceError(
            f"{path} lacks {len(missing)} of the 17 intensities, {missing[0]} for one; expected a "
            "CSV of OpenFace's FeatureExtraction made with -aus"
        )
    names = (*INTENSITIES, *(name for name in PRESENCES if name in columns))
    valid = columns.get("success", np.ones(len(columns[names[0]]))) > 0.5
    if "face_id" in columns and valid.any():
        faces, votes = np.unique(columns["face_id"][valid], return_counts=True)
        kept = columns["face_id"] == faces[votes.argmax()]
        columns, valid = {name: column[kept] for name, column in columns.items()}, valid[kept]
    if valid.sum() < max(1, MIN_SUCCESS * len(valid)):
        raise OpenFaceError(
            f"{path} has a face in {valid.sum()} of {len(valid)} rows; expected one in at least "
            f"{MIN_SUCCESS:.0%} of them (column success)"
        )
    values = np.stack([columns[name] for name in names], 1)
    timed = "timestamp" in columns
    seconds = columns["timestamp"] if timed else np.arange(len(values)) / FPS
    if not np.isfinite(seconds).all() or not np.isfinite(values[valid]).all():
        raise OpenFaceError(
            f"{path} has values that are no numbers; expected numbers in every row with a face "
            "and as every timestamp"
        )
    if (np.diff(seconds) <= 0).any():
        at = int(np.flatnonzero(np.diff(seconds) <= 0)[0])
        raise OpenFaceError(
            f"{path} has the timestamp {seconds[at + 1]:g} after {seconds[at]:g}; expected rising "
            "ones, one row per frame"
        )
    values = np.clip(np.nan_to_num(values), 0.0, [maximum(name) for name in names])
    return Track(values.astype(np.float32), names, seconds, valid, timed)


def maximum(name: str) -> float:
    """The largest value that a column may have."""
    return MAX_BLINK if name == "AU45_r" else 5.0 if name in INTENSITIES else 1.0


def _columns(path) -> dict[str, np.ndarray]:
    """Stripped name -> float64 [R] of those columns that are used; NaN for what is no number."""
    used = {"timestamp", "success", "face_id", *INTENSITIES, *PRESENCES}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise OpenFaceError(f"{path} is no CSV file ({error}); expected one of OpenFace") from None
    header = [name.strip() for name in rows[0]] if rows else []
    short = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if short:
        raise OpenFaceError(
            f"{path} has {len(rows[short[0] - 1])} fields in row {short[0]}; expected "
            f"{len(header)} as in its header"
        )
    places = {name: place for place, name in enumerate(header) if name in used}
    return {
        name: np.array([_number(row[place]) for row in rows[1:]], np.float64)
        for name, place in places.items()
    }


def _number(text) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
