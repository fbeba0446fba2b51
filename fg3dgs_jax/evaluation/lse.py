"""LSE-C and LSE-D of a render and of the ground truth: SyncNet's score of mouth against sound.

The frames go to the network as they are drawn, with no video codec between ("direct"). Published
figures went through two. The figures of the ground truth, measured in the same way, are the upper
bound.
"""

import functools
import os
import tempfile
from collections.abc import Iterator

import numpy as np

from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.evaluation import pretrained, tracks
from fg3dgs_jax.experts.face import s3fd
from fg3dgs_jax.experts.lips import syncnet
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.media.clock import FPS, SAMPLES_PER_FRAME
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.weights import store

# Seconds, below which the zeros around the clip weigh on the mean.
UNBIASED_SECONDS = 10.0
# px, the smallest face that the protocol takes.
MIN_FACE = 100.0
NAMES = ("lse_c", "lse_d", "lse_offset", "lse_truth")


def load() -> OptionalNetwork:
    """Returns SyncNet v2: call(RGB faces uint8 [T, 224, 224, 3], int16 samples) -> `LipSync`."""

    def build(path):
        return functools.partial(syncnet.score_track, syncnet.load(path))

    return pretrained.load("syncnet_v2", "SyncNet v2", build)


def load_faces(*names: str) -> OptionalNetwork:
    """Returns the first S3FD whose weights are installed: call(RGB uint8 [H, W, 3]) -> [N, 5].

    Without any there is no call, and the source states that boxes come from the landmarks.
    """
    for name in names:
        path = store.find(name)
        if path is not None:
            return OptionalNetwork(functools.partial(s3fd.detect, s3fd.load(path)), name)
    return OptionalNetwork(None, "mesh-box")


def recording(folder: os.PathLike[str] | str, count: int, height: int, width: int) -> np.ndarray:
    """Returns uint8 [count, height, width, 3] to write frames into.

    A nameless file in `folder`: it takes no memory, and is gone with the array.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, "w+", shape=(count, height, width, 3))


def measure(
    expert: OptionalNetwork,
    faces: OptionalNetwork,
    truth: np.ndarray | None,
    rendered: np.ndarray | None,
    landmarks: np.ndarray | None,
    samples: np.ndarray,
) -> tuple[dict, str]:
    """Returns the figures `NAMES` for `metrics.json`, and how they were measured, or why not.

    Args:
      expert: from `load`.
      faces: from `load_faces`.
      truth: the clip's frames, uint8 RGB [T, H, W, 3]; None: only the render is measured.
      rendered: the drawn ones; None where `expert` has no call.
      landmarks: [T, 478, 2] px of the truth, for boxes where there is no detector; None where no
        face was tracked.
      samples: int16 at 16 kHz, from the first frame on.

    Returns:
      lse_c, lse_d, lse_offset of the render (frames by which the sound lies before the picture),
      lse_truth: a dict of the same three of the truth. None for what could not be measured.
    """
    figures: dict = dict.fromkeys(NAMES)
    notes = [f"{expert.source}, no codec, lse({faces.source})"]
    if expert.call is None or rendered is None:
        return figures, expert.source
    for name, frames in (("truth", truth), ("render", rendered)):
        if frames is None:
            continue
        try:
            first, boxes = _boxes(faces, frames, landmarks, name)
            score, count = _score(expert, frames, boxes, first, samples)
        except ValueError as error:
            notes.append(f"{name} not measured: {error}")
            continue
        notes += _cautions(name, count, len(frames), boxes)
        values = {"lse_c": score.lse_c, "lse_d": score.lse_d}
        if name == "truth":
            figures["lse_truth"] = {**values, "offset": score.offset}
        else:
            figures |= {**values, "lse_offset": score.offset}
    return figures, "; ".join(dict.fromkeys(notes))


def _boxes(faces, frames, landmarks, name):
    """Returns (first frame, boxes [n, 4]) of the speaker."""
    if faces.call is None:
        if landmarks is None:
            raise ValueError("no face was tracked in these frames, and S3FD's weights are not here")
        return 0, face_boxes.mesh_boxes(landmarks)
    bar = progress(frames, desc=f"faces of the {name}", unit="frame")
    track = tracks.longest_track([faces.call(np.asarray(frame)) for frame in bar])
    if track is None:
        raise ValueError("S3FD found no face")
    return track


def _score(expert, frames, boxes, first, samples):
    """Returns (the score of the track, number of its frames that have sound)."""
    sound = samples[first * SAMPLES_PER_FRAME : (first + len(boxes)) * SAMPLES_PER_FRAME]
    count = min(len(boxes), len(sound) // SAMPLES_PER_FRAME)
    if count < syncnet.MIN_TRACK:
        raise ValueError(
            f"a face is there with sound in {count} frames; expected {syncnet.MIN_TRACK} or more"
        )
    crops = syncnet.crop_track(frames[first : first + len(boxes)], boxes)
    return expert.call(crops, sound), count


def _cautions(name, count, num_frames, boxes) -> Iterator[str]:
    """Yields what a reader must know before comparing the figure with others."""
    seconds = count / FPS
    if seconds < UNBIASED_SECONDS:
        yield f"biased: {seconds:.1f} s, less than the {UNBIASED_SECONDS:.0f} the figures need"
    if len(boxes) < num_frames:
        yield f"{name}: a face in {len(boxes)} of {num_frames} frames"
    side = float(np.mean((boxes[:, 2:] - boxes[:, :2]).max(1)))
    if side < MIN_FACE:
        yield f"the face is {side:.0f} px, the protocol takes {MIN_FACE:.0f} or more"
