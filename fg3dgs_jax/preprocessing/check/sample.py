"""A sample of a video that can be judged in seconds: which frames, and what is kept of them.

`plan` chooses the frames. `Sketches` keeps what is needed of their pictures while they pass by on
their way to the landmarker. `Evidence` is all that `verdicts.check` judges.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.media import loudness
from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.media.video import Source

STRETCH = 20 * FPS  # frames in one piece: for blinks, cuts, and lips against sound
BURSTS, BURST = 14, 5  # further pieces all over the clip, frames each
KEEP = 15  # every KEEP-th frame's grey picture is kept whole, for sharpness and light
THUMB = (64, 36)  # px (width, height)
BLANK = 3.0  # grey levels, deviation within a thumb that shows nothing
CUT = 12.0  # mean grey levels between thumbs of neighbours; a vivid speaker makes 6
TOP, BOTTOM = 10, 152  # landmarks: top of the forehead, chin


class Evidence(NamedTuple):
    """What `check` judges. N sampled frames; landmarks in px of the (upright, whole) picture."""

    fps: float  # of the source
    size: tuple[int, int]  # (height, width) px of the whole picture
    output: tuple[int, int]  # (height, width) px of what will be processed
    window: tuple[int, int, int, int] | None  # (row, column, height, width) processed; None: all
    num_frames: int  # of the clip, at 25 a second
    samples: np.ndarray  # int16, the whole sound
    frames: np.ndarray  # int [N] frame numbers, in pieces without gaps
    pixels: np.ndarray  # [N, 478, 2]
    num_faces: np.ndarray  # int [N]
    rotation: np.ndarray  # [N, 3, 3] head to camera
    thumbs: np.ndarray  # float32 [N, 36, 64] grey
    greys: dict[int, np.ndarray]  # {row of N: uint8 [H, W]}
    source: Source  # the file
    file_seconds: float  # of all its pictures
    begin: float  # s from its first picture to frame 0 of the clip
    other_tracks: Mapping[int, Any]  # {number: `sound_rows.Heard`} of the tracks that are not used
    # s by which the sound has been moved back. None: it is moved later, by the whole clip's lips.
    av_offset: float | None = 0.0
    own: float = 1.0  # share of the time that the scene seen longest takes, which is the one used


def plan(num_frames: int, samples: np.ndarray) -> list[tuple[int, int]]:
    """Pieces (first frame, number) to look at: the stretch with most speech, and short bursts."""
    length = min(STRETCH, num_frames)
    spoken = np.concatenate([[0], np.cumsum(loudness.speech_map(samples, num_frames))])
    best = int(np.argmax(spoken[length:] - spoken[:-length])) if num_frames > length else 0
    pieces = [(best, length)]
    for first in np.linspace(0, num_frames - BURST, BURSTS).astype(int):
        if first + BURST <= best or first >= best + length:
            pieces.append((int(first), BURST))
    return sorted(pieces)


class Sketches:
    """Passes pictures on and keeps thumbs of all and whole grey pictures of a few of them."""

    def __init__(self, count: int) -> None:
        """Makes room for the thumbs of `count` pictures."""
        # In one piece: small arrays kept between large ones that pass would tear the heap to
        # pieces, 2.5 GB of holes for 500 pictures of 1080p.
        self.thumbs, self.greys = np.empty((count, *THUMB[::-1]), np.float32), {}

    def watch(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the uint8 RGB pictures [H, W, 3] it is given, `count` of them."""
        for i, picture in enumerate(pictures):
            if i % KEEP == 0:
                self.greys[i] = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            self.thumbs[i] = thumb(picture)
            yield picture


def follows(frames: np.ndarray) -> np.ndarray:
    """Whether [N - 1] the frame after frame n of the sample, int [N], follows it in the clip."""
    return np.diff(frames) == 1


def thumb(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] -> float32 [36, 64] grey."""
    small = cv2.resize(picture, THUMB, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def cuts_in(thumbs: Iterable[np.ndarray]) -> Iterator[int]:
    """Yields the places k of thumbs [36, 64] in a row at which another scene begins.

    A picture without content (the camera covered, a black frame) is no scene: what comes after it
    is held against what came before.
    """
    before = None
    for k, after in enumerate(thumbs):
        if after.std() < BLANK:
            continue
        if before is not None and np.abs(after - before).mean() > CUT:
            yield k
        before = after


def face_heights(pixels: np.ndarray) -> np.ndarray:
    """Pixels [N] from forehead to chin of landmarks [N, 478, 2]."""
    return np.linalg.norm(pixels[:, TOP] - pixels[:, BOTTOM], axis=-1)
