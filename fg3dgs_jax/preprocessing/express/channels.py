"""The expression channels of a folder: blendshapes, gaze, and action units.

Action units come from blendshapes, as proxies, or from OpenFace, which then takes the proxies'
place.
"""

from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.clip import over_time
from fg3dgs_jax.preprocessing.express import openface

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


def expression_channels(
    blendshapes: np.ndarray, names: Sequence[str], valid: np.ndarray, cuts: Sequence[int] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Blendshapes [T, 52], their names, bool [T] -> float32 [T, 60] and its names (AU45 last).

    `cuts`: the frames that begin another scene, for `over_time.smooth`.
    """
    smooth = np.clip(over_time.smooth(blendshapes, valid, cuts), 0, 1)
    # A lid falls within a frame or two: smoothed, a blink would begin before the eye shuts.
    blinks = [names.index(n) for n in ACTION_UNITS["AU45"]]
    smooth[:, blinks] = np.clip(over_time.bridge(blendshapes[:, blinks], valid), 0, 1)

    def mean(parts):
        return smooth[:, [names.index(n) for n in parts]].mean(1)

    extra = {n: np.clip(mean(plus) - mean(minus), -1, 1) for n, (plus, minus) in GAZE.items()}
    extra |= {n: mean(parts) for n, parts in ACTION_UNITS.items()}
    channels = np.concatenate([smooth, np.stack(list(extra.values()), 1)], 1)
    return channels.astype(np.float32), (*names, *extra)


def with_openface(
    channels: np.ndarray, names: Sequence[str], track: openface.Track
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Channels [T, E] with OpenFace's action units instead of the proxies, and their names.

    A proxy's place and range stay: AU01 is AU01_r / 5, AU45 is AU45_r / 2, all in [0, 1]. The other
    intensities stand before the proxies under such names too (AU02, AU09, ...), and before them
    the presences, 0 or 1, under OpenFace's (AU28_c).

    Args:
      channels: [T, E], from `expression_channels`.
      names: of the E columns.
      track: from `openface.channels`, [T, A].
    """
    units = {}
    for name, values in zip(track.names, track.values.T, strict=True):
        if name in openface.PRESENCES:
            units[name] = values
        else:
            units[name.removesuffix("_r")] = values / openface.maximum(name)
    first = min(names.index(n) for n in ACTION_UNITS)
    extra = [n for n in track.names if n in openface.PRESENCES]
    extra += [n for n in units if n not in extra and n not in ACTION_UNITS]
    columns = {n: units.get(n, channels[:, k]) for k, n in enumerate(names)}
    order = (*names[:first], *extra, *names[first:])
    stacked = np.stack([columns[n] if n in columns else units[n] for n in order], 1)
    return stacked.astype(np.float32), order
