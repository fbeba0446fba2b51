"""Measures of whole frames, fed as they are drawn: FID, and LPIPS with VGG-16.

Each is a `watcher.Measure`.
"""

import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.evaluation import fid, pretrained
from fg3dgs_jax.experts.image import inception
from fg3dgs_jax.experts.optional import OptionalNetwork

# Frames whose features are added to the covariance together: each time all of it is written.
ROWS = 32


class FrechetDistance:
    """FID between the true frames and the drawn ones, both at eight bits, as pictures have."""

    def __init__(self, network: OptionalNetwork):
        """`network`: call(uint8 [B, H, W, 3]) -> features [B, D]."""
        self.network = network
        self.moments: tuple[fid.Moments, ...] = ()
        self.waiting: list[np.ndarray] = []  # [2, D] of a frame

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one pair of frames [H, W, 3] in [0, 1]."""
        if self.network.call is None:
            return
        pictures = np.stack([play.to_uint8(truth), play.to_uint8(image)])
        self.waiting.append(self.network.call(pictures))
        if len(self.waiting) == ROWS:
            self._take_in()

    def _take_in(self):
        if not self.waiting:
            return
        rows = np.stack(self.waiting, 1)  # [2, n, D]
        self.moments = self.moments or tuple(fid.Moments(rows.shape[-1]) for _ in rows)
        for moments, part in zip(self.moments, rows, strict=True):
            moments.add(part)
        self.waiting = []

    def result(self) -> tuple[float | None, str]:
        """Returns the distance, or None, and its source or the reason."""
        if self.network.call is None:
            return None, self.network.source
        self._take_in()
        frames = self.moments[0].count if self.moments else 0
        if frames < fid.MIN_ROWS:
            return None, f"not measured: {frames} frame; FID needs at least {fid.MIN_ROWS}"
        note = f"{frames} frames, native size: comparable with others of {frames} frames only"
        return fid.distance(*self.moments), f"{self.network.source}; {note}"


class MeanDistance:
    """The mean over the frames of a distance of two pictures."""

    def __init__(self, network: OptionalNetwork):
        """`network`: call(truth, image) -> float."""
        self.network = network
        self.values: list[float] = []

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one pair of frames [H, W, 3] in [0, 1]."""
        if self.network.call is not None:
            self.values.append(self.network.call(truth, image))

    def result(self) -> tuple[float | None, str]:
        """Returns the mean, or None, and its source or the reason."""
        return float(np.mean(self.values)) if self.values else None, self.network.source


def load_fid() -> FrechetDistance:
    """Returns FID with the Inception network of pytorch-fid, where its weights are installed."""

    def build(path):
        variables = inception.load(path)

        def call(images):
            return np.asarray(inception.features(variables, np.asarray(images, np.float32) / 255.0))

        return call

    return FrechetDistance(pretrained.load("fid_inception", "Inception of pytorch-fid", build))


def load_lpips_vgg() -> MeanDistance:
    """Returns LPIPS v0.1 with VGG-16, where its weights are installed.

    Without an accelerator it takes seconds a frame.
    """
    expert = pretrained.load("lpips_vgg", "lpips vgg v0.1", pretrained.lpips_distance)
    return MeanDistance(expert)
