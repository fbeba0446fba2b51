"""What a user may change about new speech: pose, blinks, expression, how far the mouth moves.

A channel of the expression is set as a share of what the clip showed: 0 is the least of it, 1 the
most. Beyond that the avatar has learnt nothing.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fg3dgs_jax.avatar.play import ping_pong
from fg3dgs_jax.media.clock import FPS

BLINK = "AU45"
POSES = ("clip", "still")
BLINKS = ("clip", "natural", "none")
MAX_GAIN = 2.0  # of the mouth: more tears the lips
_LEAST, _MOST = 2.0, 99.0  # percentiles of the clip
_OPEN = 0.05  # share at which an eye is open
_PAUSE = (1.0, 3.0)  # s from one blink to the next: at least, and on average beyond that
# Shares of a blink at 25 frames a second: lids fall within 120 ms and rise within 240 ms.
_SHAPE = np.array([0.35, 0.85, 1.0, 0.9, 0.65, 0.4, 0.2])

Curve = float | np.ndarray  # one value, or a value a frame


@dataclasses.dataclass(frozen=True)
class Controls:
    """The defaults change nothing.

    Attributes:
      split: the frames of the clip that lend poses, background, blinks and gaze: train, test, all.
      size: px of the longer side of what is drawn, at most that of the folder. None: as in
        training.
      pose: `clip` plays the clip's poses forth and back, `still` keeps the most usual one.
      blink: those of the `clip`, `natural` ones at random, `none`, or how far the lids are shut.
      expression: shares of the clip's range, by the name of a channel.
      mouth_gain: how far lips and jaw move from where silence has them, 1 as learnt.
      seed: of the natural blinks.
    """

    split: str = "train"
    size: int | None = None
    pose: str = "clip"
    blink: str | Curve = "clip"
    expression: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    mouth_gain: Curve = 1.0
    seed: int = 0

    @property
    def eases(self) -> bool:
        """Whether the mouth moves otherwise than as learnt."""
        return bool(np.any(np.asarray(self.mouth_gain) != 1.0))


UNCHANGED = Controls()


def check(controls: Controls, names: Sequence[str]) -> None:
    """Checks controls against the channels of an avatar.

    Raises:
      ValueError: an unknown word or channel, or a value out of range.
    """
    _one_of("pose", controls.pose, POSES)
    if isinstance(controls.blink, str):
        _one_of("blink", controls.blink, BLINKS)
    for name in controls.expression:
        if name not in names:
            raise ValueError(f"expression {name!r} is unknown to the avatar; it has {list(names)}")
    shares = dict(controls.expression)
    if not isinstance(controls.blink, str):
        shares["blink"] = controls.blink
    if (controls.blink != "clip" or "blink" in shares) and BLINK not in names:
        raise ValueError(f"the avatar has no channel {BLINK}: it cannot blink as told")
    limits = dict.fromkeys(shares, 1.0) | {"mouth_gain": MAX_GAIN}
    for name, curve in (shares | {"mouth_gain": controls.mouth_gain}).items():
        values = np.asarray(curve, np.float64)
        if values.size == 0 or not np.all((values >= 0) & (values <= limits[name])):
            odd = values[~((values >= 0) & (values <= limits[name]))]
            raise ValueError(
                f"{name} is {odd.flat[0] if odd.size else 'empty'}; expected 0 to {limits[name]:g}"
            )


def poses(controls: Controls, pool: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """Returns the clip's frame [count] that lends each frame its pose.

    Args:
      controls: `pose` of them.
      pool: int [P], consecutive frames of the clip.
      positions: [T, 3], where the camera is in each frame of the clip.
      count: of the frames.
    """
    played = pool[ping_pong(count, len(pool))]
    if controls.pose == "clip":
        return played
    middle = np.median(positions[pool], 0)
    usual = pool[np.argmin(np.linalg.norm(positions[pool] - middle, axis=-1))]
    return np.full(count, usual)


def apply(
    controls: Controls, rows: np.ndarray, learnt: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Returns the expression [n, E] of each frame as the controls want it.

    Args:
      controls: checked.
      rows: float [n, E], as the clip lends it.
      learnt: float [T, E], what the avatar learnt from.
      names: of the channels.
    """
    rows, count = rows.copy(), len(rows)
    shares = dict(controls.expression)
    if controls.blink == "natural":
        shares[BLINK] = natural_blinks(count, controls.seed)
    elif controls.blink == "none":
        shares[BLINK] = 0.0
    elif not isinstance(controls.blink, str):
        shares[BLINK] = controls.blink
    for name, curve in shares.items():
        column = list(names).index(name)
        low, high = np.percentile(learnt[:, column], (_LEAST, _MOST))
        rows[:, column] = low + (high - low) * of_frames(curve, count)
    return rows


def of_frames(curve: Curve, count: int) -> np.ndarray:
    """Returns a value a frame [count]; a curve that is too short stays at its last value."""
    values = np.atleast_1d(np.asarray(curve, np.float32))
    return values[np.minimum(np.arange(count), len(values) - 1)]


def natural_blinks(count: int, seed: int = 0) -> np.ndarray:
    """Returns how far the lids are shut, 0 to 1, in `count` frames: a blink every four seconds."""
    rng = np.random.default_rng(seed)
    lids = np.full(count + len(_SHAPE), _OPEN)
    at = 0.0
    while True:
        at += _PAUSE[0] + rng.exponential(_PAUSE[1])
        first = round(at * FPS)
        if first >= count:
            return lids[:count]
        part = lids[first : first + len(_SHAPE)]
        part[:] = np.maximum(part, _SHAPE * rng.uniform(0.85, 1.0))


def read_curve(text: str | os.PathLike[str], column: str) -> Curve:
    """Returns a number, or the curve in a CSV file, one row a frame.

    Args:
      text: a number, or the path of a file. With a header its column `column` is taken, else its
        only one.
      column: name of the curve.

    Raises:
      ValueError: neither, or no such column.
    """
    try:
        return float(os.fspath(text))
    except ValueError:
        path = pathlib.Path(text)
    if not path.is_file():
        raise ValueError(f"{column} is {str(text)!r}; expected a number, or a CSV file of numbers")
    columns = _columns(path)
    if column not in columns and len(columns) != 1:
        raise ValueError(f"{path} has no column {column!r}; it has {list(columns)}")
    return columns.get(column, next(iter(columns.values())))


def read_columns(path: os.PathLike[str] | str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns those of the named curves that a CSV file with a header has, one row a frame.

    Raises:
      ValueError: no such file, no numbers, or none of the names.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(f"{path} does not exist; expected a CSV file with columns {list(names)}")
    columns = {name: curve for name, curve in _columns(path).items() if name in names}
    if not columns:
        raise ValueError(f"{path} has none of the columns {list(names)}; expected one or more")
    return columns


def _columns(path: os.PathLike[str] | str) -> dict[str, np.ndarray]:
    """{name: float32 [n]}; without a header the only column is called "0"."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"{path} is empty; expected one row of numbers a frame")
    names = [str(i) for i in range(len(rows[0]))] if _is_number(rows[0][0]) else rows.pop(0)
    try:
        values = np.array(rows, np.float32).reshape(len(rows), len(names))
    except ValueError:
        raise ValueError(f"{path} has a row that is not {len(names)} numbers") from None
    return dict(zip(names, values.T, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _one_of(name: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise ValueError(f"{name} is {word!r}; expected one of {', '.join(words)}")
