"""Measures of whole frames that watch them as they are drawn: FID, and LPIPS with VGG-16.

Each has `add(truth, image)`, for one true and one drawn frame [H, W, 3] in [0, 1], and `result()`:
the value, None where it cannot be had, and where it comes from or why not.
"""

import jax
import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.evaluation import fid
from fg3dgs_jax.experts.image import inception, lpips
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.weights import store

ROWS = 32  # frames whose features wait for each other


class FrechetDistance:
    """FID between the true frames and the drawn ones, both at eight bits, as pictures have."""

    def __init__(self, network: OptionalNetwork):
        """`network`: call(uint8 [B, H, W, 3]) -> features [B, D]."""
        self.network, self.moments, self.waiting = network, None, []

    def add(self, truth, image):
        if self.network.call is None:
            return
        pictures = np.stack([play.to_uint8(truth), play.to_uint8(image)])
        self.waiting.append(self.network.call(pictures))
        if len(self.waiting) == ROWS:
            self._take_in()

    def _take_in(self):
        """Many rows at once: each time the whole covariance is written."""
        if not self.waiting:
            return
        rows = np.stack(self.waiting, 1)  # [2, n, D]
        self.moments = self.moments or tuple(fid.Moments(rows.shape[-1]) for _ in rows)
        for moments, part in zip(self.moments, rows, strict=True):
            moments.add(part)
        self.waiting = []

    def result(self) -> tuple[float | None, str]:
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
        self.network, self.values = network, []

    def add(self, truth, image):
        if self.network.call is not None:
            self.values.append(self.network.call(truth, image))

    def result(self) -> tuple[float | None, str]:
        return float(np.mean(self.values)) if self.values else None, self.network.source


def load_fid() -> FrechetDistance:
    """With pytorch-fid's Inception where its weights are."""
    path = store.find("fid_inception")
    if path is None:
        return FrechetDistance(OptionalNetwork(None, store.not_found("fid_inception")))
    variables = inception.load(path)

    def call(images):
        return np.asarray(inception.features(variables, np.asarray(images, np.float32) / 255.0))

    return FrechetDistance(OptionalNetwork(call, f"Inception of pytorch-fid ({path.name})"))


def load_lpips_vgg() -> MeanDistance:
    """LPIPS v0.1 with VGG-16 where its weights are: seconds a frame without an accelerator."""
    path = store.find("lpips_vgg")
    if path is None:
        return MeanDistance(OptionalNetwork(None, store.not_found("lpips_vgg")))
    params, distance = lpips.load(path), jax.jit(lpips.lpips)

    def call(truth, image):
        pair = (np.asarray(picture, np.float32)[None] for picture in (truth, image))
        return float(distance(params, *pair)[0])

    return MeanDistance(OptionalNetwork(call, f"lpips vgg v0.1 ({path.name})"))
