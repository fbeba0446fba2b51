"""Spoils a video in known ways and judges each copy: does every figure move as it should?

    python scripts/spoil.py --video obama.mp4 --stranger french.mp4 --scratch spoilt

Prints a Markdown table, a row for each copy. Needs MediaPipe and the weights of face_landmarker.
"""

import argparse
import pathlib
import sys

import cv2
import numpy as np

from fg3dgs_jax.clip.landmarks import OUTER_LIPS, boxes_around
from fg3dgs_jax.evaluation import judge
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.weights import store

SIZE = 256  # px
COLUMNS = {  # heading -> (path in metrics.json, format)
    "PSNR": ("psnr", ".1f"),
    "SSIM": ("ssim", ".3f"),
    "LPIPS": ("lpips", ".3f"),
    "LMD": ("lmd", ".2f"),
    "lips PSNR": ("lips_psnr", ".1f"),
    "temporal": ("temporal.frame_ratio", ".2f"),
    "its lips": ("temporal.lips_ratio", ".2f"),
    "opening": ("driven.opening", ".2f"),
    "lag": ("driven.lag", "d"),
    "spread": ("driven.opening_spread", ".2f"),
    "F1": ("driven.f1", ".2f"),
    "jitter": ("jitter", ".1f"),
    "expected: opening": ("expected.opening", ".2f"),
    "lag there": ("expected.lag", "d"),
}


def main(argv=None):
    """Runs the program; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True, type=pathlib.Path, help="a talking head")
    parser.add_argument("--stranger", required=True, type=pathlib.Path, help="another person's")
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder to work in")
    parser.add_argument("--seconds", type=float, default=6.0, help="of the videos (default: 6)")
    flags = parser.parse_args(argv)
    flags.scratch.mkdir(parents=True, exist_ok=True)
    pictures, samples = read(flags.video, flags.seconds)
    truth = flags.scratch / "truth.mp4"
    video.write_video(truth, pictures, samples, crf=6)
    print("| " + " | ".join(["the copy is", *COLUMNS]) + " |")
    print("| " + " | ".join(["---"] * (1 + len(COLUMNS))) + " |")
    copies = spoilt(pictures, samples, read(flags.stranger, flags.seconds)[0])
    for number, (words, (frames, sound)) in enumerate(copies.items()):
        path = flags.scratch / f"{number}.mp4"
        video.write_video(path, frames, sound, crf=6)
        print(row(words, judge.judge(path, truth)), flush=True)
    return 0


def read(path, seconds):
    """(pictures uint8 [SIZE, SIZE, 3] of the middle square, their sound)."""
    footage = video.read_video(path, max_seconds=seconds)
    side = min(footage.height, footage.width)
    window = (footage.height - side) // 2, (footage.width - side) // 2, side, side
    footage = footage.cropped(window, SIZE)
    return list(footage.frames()), footage.samples


def spoilt(pictures, samples, strangers):
    """{what was done: (pictures, sound)}."""
    rng, step = np.random.default_rng(0), 5 * clock.SAMPLES_PER_FRAME
    late = np.concatenate([np.zeros(step, np.int16), samples[:-step]])
    shaken = [np.roll(p, tuple(rng.integers(-1, 2, 2)), (0, 1)) for p in pictures]
    return {
        "the same": (pictures, samples),
        "blurred by 1.5 px": ([cv2.GaussianBlur(p, (0, 0), 1.5) for p in pictures], samples),
        "a frame late": ([pictures[0], *pictures[:-1]], samples),
        "the same, sound five frames late": (pictures, late),
        "of a frozen mouth": (frozen(pictures), samples),
        "shaken by a pixel each frame": (shaken, samples),
        "another person's face": (strangers, samples),
    }


def frozen(pictures):
    """Pictures with the mouth of the first one pasted over that of each."""
    track = face_landmarker.detect(store.require("face_landmarker"), iter(pictures), clock.FPS)
    boxes = boxes_around(track.pixels[:, OUTER_LIPS], SIZE, SIZE, judge.LIPS_MARGIN)
    row0, row1, col0, col1 = boxes[0]
    mouth = pictures[0][row0:row1, col0:col1]
    for picture, (row, _, column, _) in zip(pictures, boxes, strict=True):
        pasted = picture.copy()
        place = pasted[row : row + len(mouth), column : column + mouth.shape[1]]
        place[:] = mouth[: place.shape[0], : place.shape[1]]
        yield pasted


def row(words, result):
    """A copy's row of the table."""
    cells = []
    for path, form in COLUMNS.values():
        value = result
        for name in path.split("."):
            value = None if value is None else value[name]
        cells.append("-" if value is None else format(value, form))
    return "| " + " | ".join([words, *cells]) + " |"


if __name__ == "__main__":
    sys.exit(main())
