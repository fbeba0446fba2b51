"""Holes of a picture filled from what surrounds them."""

import cv2
import numpy as np


def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] with the pixels not `known` [H, W] filled smoothly from the known ones."""
    weight = known.astype(np.float32)
    return np.rint(fill_weighted(image.astype(np.float32), weight)).astype(np.uint8)


def fill_weighted(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pull-push: average down to one pixel, then let each level fill what the finer one lacks."""
    height, width = weight.shape
    if min(height, width) <= 2 or weight.all():
        total = max(weight.sum(), 1e-6)
        mean = (image * weight[..., None]).sum((0, 1)) / total
        return np.where(weight[..., None] > 0, image, mean)
    size = ((width + 1) // 2, (height + 1) // 2)
    small_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], size, interpolation=cv2.INTER_AREA)
    small = small / np.maximum(small_weight, 1e-6)[..., None]
    coarse = fill_weighted(small, (small_weight > 0).astype(np.float32))
    coarse = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(weight[..., None] > 0, image, coarse)
