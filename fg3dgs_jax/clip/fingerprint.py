"""Whether two processed folders hold the same, wherever and however they are stored."""

import hashlib

import numpy as np

from fg3dgs_jax.clip.processed import Clip


def fingerprint(clip: Clip) -> str:
    """Hex digest of a clip's length, poses and expressions; its pictures are not read."""
    digest = hashlib.sha256(str(clip.num_frames).encode())
    for array in (clip.world_to_camera, clip.valid, clip.expression):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def digest_of(features: np.ndarray) -> str:
    """Hex digest of audio features [T, A, D]: an avatar has learnt what these mean."""
    return hashlib.sha256(np.ascontiguousarray(features, np.float32).tobytes()).hexdigest()[:16]
