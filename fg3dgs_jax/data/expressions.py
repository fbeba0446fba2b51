"""Blendshapes -> the expression channels of a folder: blendshapes, gaze, AU proxies."""

import numpy as np

from fg3dgs_jax.data.parsing import smooth_in_time

# Action unit -> the blendshapes whose mean stands for it, in [0, 1]; not calibrated to OpenFace.
ACTION_UNITS = {
    "AU01": ("browInnerUp",),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU06": ("cheekSquintLeft", "cheekSquintRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}
# In [-1, 1]: x towards the person's left (picture right), y up. (positive, negative) means.
GAZE = {
    "gaze_x": (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
    "gaze_y": (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")),
}


def expression_channels(blendshapes, names, valid):
    """blendshapes [T, 52], their names, bool [T] -> float32 [T, 60] and its names (AU45 last)."""
    smooth = np.clip(smooth_in_time(blendshapes, valid), 0, 1)
    mean = lambda wanted: smooth[:, [names.index(n) for n in wanted]].mean(1)  # noqa: E731
    extra = {n: np.clip(mean(plus) - mean(minus), -1, 1) for n, (plus, minus) in GAZE.items()}
    extra |= {n: mean(parts) for n, parts in ACTION_UNITS.items()}
    channels = np.concatenate([smooth, np.stack(list(extra.values()), 1)], 1)
    return channels.astype(np.float32), (*names, *extra)
