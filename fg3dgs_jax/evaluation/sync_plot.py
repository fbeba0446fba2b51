"""A picture of our own lip-sync expert's score against shifts of the sound."""

import cv2
import numpy as np

from fg3dgs_jax.media.plots import CURVES


def plot(summaries, title, size=(760, 420)) -> np.ndarray:
    """uint8 picture of the curves of {name: summary} over shift, on common axes."""
    (width, height), (left, right, top, bottom) = size, (56, 16, 34, 44)
    image = np.full((height, width, 3), 255, np.uint8)
    values = np.array([s["curve"] for s in summaries.values()])
    low, high = values.min(), values.max()
    reach = values.shape[1] // 2

    def across(shift):
        return left + (shift + reach) / (2 * reach) * (width - left - right)

    def down(value):
        share = (value - low) / max(high - low, 1e-9)
        return height - bottom - share * (height - top - bottom)

    def text(words, x, y, colour=(0, 0, 0)):
        at = (round(x), round(y))
        cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)

    text(title, left, 18)
    for o in range(-reach, reach + 1, 5):
        x = round(across(o))
        cv2.line(image, (x, top), (x, height - bottom), (215, 215, 215) if o else (140,) * 3, 1)
        text(f"{o:+d}" if o else "0", x - 8, height - bottom + 16)
    text("sound later than picture, frames of 40 ms", left, height - 10)
    for v in np.linspace(low, high, 5):
        text(f"{v:.2f}", 8, down(v) + 4)
    for k, (name, found) in enumerate(summaries.items()):
        colour = CURVES[k % len(CURVES)]
        points = [(across(o - reach), down(v)) for o, v in enumerate(found["curve"])]
        cv2.polylines(image, [np.rint(points).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
        text(
            f"{name}: {found['aligned']:.0%} of {found['runs']}",
            left + 8,
            top + 16 * (k + 1),
            colour,
        )
    return image
