"""The frozen lip-sync experts of eq. (16) behind one interface: do five frames fit their sound?

Wav2Lip's discriminator where its weights are found (the paper's, for research only), else one of
your own: `python -m fg3dgs_jax.lipsync fit` writes `sync_expert.npz`; put it in a folder of
$FG3DGS_WEIGHTS, or name it in `config.sync_expert`.
"""

import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.experts.lips import wav2lip
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import expert
from fg3dgs_jax.media import windows as windows_lib
from fg3dgs_jax.weights import store


def find(choice: str) -> pathlib.Path | None:
    """The expert's file: `choice` if it names one, else Wav2Lip's, else your own; None if neither.

    Raises:
      ValueError: there is no such file.
    """
    if choice:
        if not pathlib.Path(choice).is_file():
            raise ValueError(
                f"there is no lip-sync expert {choice}; expected the sync_expert.npz that "
                "`python -m fg3dgs_jax.lipsync fit` writes, or Wav2Lip's lipsync_expert.pth"
            )
        return pathlib.Path(choice)
    own = [folder / f"{expert.NAME}.npz" for folder in store.search_folders()]
    return store.find("wav2lip") or next((path for path in own if path.is_file()), None)


def load(choice: str, clip: Clip, samples: np.ndarray) -> OptionalNetwork:
    """Eq. (16)'s loss for one clip: an expert, the sound it has read, and where it looks.

    Args:
      choice: see `find`.
      clip: whose frames it will judge.
      samples: int16, the clip's sound at 16 kHz.

    Returns:
      call(frames [B, 5, H, W, 3] in [0, 1], first frames [B]) -> []: L_lip; no call without an
      expert.

    Raises:
      ValueError: the expert's file is missing or damaged.
    """
    path = find(choice)
    if path is None:
        return OptionalNetwork(None, "no lip-sync expert found; see: python -m fg3dgs_jax.lipsync")
    if path.stem == expert.NAME:
        return OptionalNetwork(own_loss(expert.load(path), clip, samples), str(path))
    return OptionalNetwork(wav2lip_loss(wav2lip.load(path), clip, samples), str(path))


def own_loss(variables: dict, clip: Clip, samples: np.ndarray) -> Callable:
    """L_lip by the expert of `lipsync fit`."""
    boxes = jnp.asarray(expert.mouth_boxes(clip.landmarks))
    windows = windows_lib.mel_windows(samples, clip.num_frames)
    sounds = expert.embed_sound(variables, windows)  # of each window's middle frame

    def call(frames, starts):
        sound = sounds[starts + expert.MIDDLE]
        return expert.sync_loss(variables, frames, boxes[_window(starts)], sound)

    return call


def wav2lip_loss(variables: dict, clip: Clip, samples: np.ndarray) -> Callable:
    """L_lip by Wav2Lip's expert: -log of the cosine."""
    boxes = jnp.asarray(face_boxes.mesh_boxes(clip.landmarks), jnp.float32)
    columns = wav2lip.mel_columns(samples)
    first = np.arange(wav2lip.num_windows(clip.num_frames, len(columns)))
    windows = np.split(wav2lip.mel_windows(columns, first), range(64, len(first), 64))
    sounds = jnp.concatenate([wav2lip.embed_sound(variables, part) for part in windows])

    def call(frames, starts):
        faces = wav2lip.lower_faces(frames, boxes[_window(starts)])
        return wav2lip.sync_loss(variables, faces, sounds[starts])

    return call


def windows(clip: Clip, learnt: np.ndarray) -> np.ndarray:
    """Which frames begin five that are all learnt and show the face.

    Silent ones count: eq. (15) goes on in this stage, and a shut mouth is not to be forgotten.

    Args:
      clip: the processed folder.
      learnt: bool [T].

    Returns:
      bool [T].
    """
    usable = learnt & clip.landmarks_valid
    begins = np.zeros(clip.num_frames, bool)
    for start in range(clip.num_frames - expert.FRAMES + 1):
        begins[start] = usable[start : start + expert.FRAMES].all()
    return begins


def _window(starts):
    """First frames [B] -> frame numbers [B, 5]."""
    return starts[:, None] + jnp.arange(expert.FRAMES)
