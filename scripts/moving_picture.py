"""Makes the README's moving picture from an evaluation's comparison video.

    python scripts/moving_picture.py runs/quickstart/eval/comparison.mp4 docs/quickstart.webp

It keeps the panels ground truth, render, face, eyes and mouth, and plays forth and back at 25 fps.
"""

import sys

import av
import cv2
import numpy as np

PANELS, OF = 5, 6  # the sixth panel is the error
MS_PER_FRAME = 40
QUALITY = 80  # WebP, 0 to 100


def main(source: str, target: str) -> None:
    """Reads the mp4 `source` and writes the animated WebP `target`."""
    with av.open(source) as video:
        frames = [f.to_ndarray(format="bgr24") for f in video.decode(video=0)]
    frames = [np.ascontiguousarray(f[:, : f.shape[1] * PANELS // OF]) for f in frames]
    animation = cv2.Animation()
    animation.frames = frames + frames[-2:0:-1]
    animation.durations = [MS_PER_FRAME] * len(animation.frames)
    cv2.imwriteanimation(target, animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])


if __name__ == "__main__":
    main(*sys.argv[1:])
