"""LSE-C and LSE-D of a render and of its truth: SyncNet's word on whether mouth and sound agree.

The frames go to the network as they are drawn, with no video codec between ("direct"); published
figures went through two. The truth's figures, measured in the same way, are the ceiling.
"""

import functools
import tempfile

import numpy as np
import tqdm

from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.evaluation import tracks
from fg3dgs_jax.experts.face import s3fd
from fg3dgs_jax.experts.lips import syncnet
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.media.clock import SAMPLES_PER_FRAME
from fg3dgs_jax.weights import store

UNBIASED_SECONDS = 10.0  # below it the zeros around the clip weigh on the mean
MIN_FACE = 100.0  # px, the smallest face that the protocol takes
NAMES = ("lse_c", "lse_d", "lse_offset", "lse_truth")


def load() -> OptionalNetwork:
    """SyncNet v2: call(RGB faces uint8 [T, 224, 224, 3], int16 samples) -> `syncnet.LipSync`."""
    path = store.find("syncnet_v2")
    if path is None:
        return OptionalNetwork(None, store.not_found("syncnet_v2"))
    score = functools.partial(syncnet.score_track, syncnet.load(path))
    return OptionalNetwork(score, f"SyncNet v2 ({path.name})")


def load_faces(*names: str) -> OptionalNetwork:
    """The first S3FD whose weights are found: call(uint8 RGB [H, W, 3]) -> [N, 5], see `s3fd`.

    Without any, no call, and the source says that boxes come from the landmarks.
    """
    for name in names:
        path = store.find(name)
        if path is not None:
            return OptionalNetwork(functools.partial(s3fd.detect, s3fd.load(path)), name)
    return OptionalNetwork(None, "mesh-box")


def recording(folder, count: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, height, width, 3] to write frames into.

    A nameless file in `folder`: it takes no memory, and is gone with the array.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, "w+", shape=(count, height, width, 3))


def measure(expert, faces, truth, rendered, landmarks, samples) -> tuple[dict, str]:
    """The figures `NAMES` for `metrics.json`, and the line that says how, or why not.

    Args:
      expert, faces: from `load` and `load_faces`.
      truth, rendered: the clip's frames and the drawn ones, uint8 RGB [T, H, W, 3].
      landmarks: [T, 478, 2] px of the truth, for boxes where there is no detector; None where no
        face was tracked.
      samples: int16 at 16 kHz, from the first frame on.

    Returns:
      lse_c, lse_d, lse_offset of the render (frames by which the sound lies before the picture),
      lse_truth: a dict of the same three of the truth. None for what could not be measured.
    """
    figures, notes = dict.fromkeys(NAMES), [f"{expert.source}, no codec, lse({faces.source})"]
    if expert.call is None:
        return figures, expert.source
    for name, frames in (("truth", truth), ("render", rendered)):
        try:
            first, boxes = _boxes(faces, frames, landmarks, name)
            found, count = _score(expert, frames, boxes, first, samples)
        except ValueError as error:
            notes.append(f"{name} not measured: {error}")
            continue
        notes += _cautions(name, count, len(frames), boxes)
        values = {"lse_c": found.lse_c, "lse_d": found.lse_d, "offset": found.offset}
        if name == "truth":
            figures["lse_truth"] = values
        else:
            figures |= {"lse_c": found.lse_c, "lse_d": found.lse_d, "lse_offset": found.offset}
    return figures, "; ".join(dict.fromkeys(notes))


def _boxes(faces, frames, landmarks, name):
    """(first frame, boxes [n, 4]) of the speaker."""
    if faces.call is None:
        if landmarks is None:
            raise ValueError("no face was tracked in these frames, and S3FD's weights are not here")
        return 0, face_boxes.mesh_boxes(landmarks)
    bar = tqdm.tqdm(frames, desc=f"faces of the {name}", unit="frame", leave=False)
    track = tracks.longest_track([faces.call(np.asarray(frame)) for frame in bar])
    if track is None:
        raise ValueError("S3FD found no face")
    return track


def _score(expert, frames, boxes, first, samples):
    """(what `expert` says of the track, number of its frames that have sound)."""
    sound = samples[first * SAMPLES_PER_FRAME : (first + len(boxes)) * SAMPLES_PER_FRAME]
    count = min(len(boxes), len(sound) // SAMPLES_PER_FRAME)
    if count < syncnet.MIN_TRACK:
        raise ValueError(
            f"a face is there with sound in {count} frames; expected {syncnet.MIN_TRACK} or more"
        )
    crops = syncnet.crop_track(frames[first : first + len(boxes)], boxes)
    return expert.call(crops, sound), count


def _cautions(name, count, num_frames, boxes):
    """What a reader must know before comparing the figure with others."""
    seconds = count / 25.0
    if seconds < UNBIASED_SECONDS:
        yield f"biased: {seconds:.1f} s, less than the {UNBIASED_SECONDS:.0f} the figures need"
    if len(boxes) < num_frames:
        yield f"{name}: a face in {len(boxes)} of {num_frames} frames"
    side = float(np.mean((boxes[:, 2:] - boxes[:, :2]).max(1)))
    if side < MIN_FACE:
        yield f"the face is {side:.0f} px, the protocol takes {MIN_FACE:.0f} or more"
