"""A painted talking face: a tiny processed folder and an avatar that paints the same face from the
sound's features.
"""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip import format, landmarks
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.media import windows as windows_lib

SIZE, HALF_WIDTH, TOP = 64, 12, 40  # px
SKIN, LIPS, INSIDE = (214, 170, 140), (190, 80, 80), (40, 10, 12)


class Frame(NamedTuple):
    image: np.ndarray
    layers: dict
    alphas: dict
    overflow: np.ndarray


class Picture(NamedTuple):
    image: np.ndarray
    overflow: np.ndarray


def loudness(features):
    """[..., 16, 80] mel windows -> [...] in [0, 1]: the four columns in the middle of the frame."""
    return np.clip((features[..., 6:10, :].mean((-1, -2)) + 1.0) * 1.2, 0.0, 1.0)


def paint(opening):
    """opening 0..1 -> (uint8 image, labels) of a face whose mouth is `opening` * 14 px high."""
    image = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    labels = np.full((SIZE, SIZE), format.LABELS["skin"], np.uint8)
    gap = round(14 * float(opening))
    columns = slice(SIZE // 2 - HALF_WIDTH, SIZE // 2 + HALF_WIDTH)
    image[TOP - 3 : TOP + gap + 3, columns] = LIPS
    labels[TOP - 3 : TOP, columns] = format.LABELS["upper_lip"]
    labels[TOP + gap : TOP + gap + 3, columns] = format.LABELS["lower_lip"]
    image[TOP : TOP + gap, columns] = INSIDE
    labels[TOP : TOP + gap, columns] = format.LABELS["mouth"]
    return image, labels, gap


def speech(seconds, seed=0):
    """int16 noise at 16 kHz whose loudness rises and falls at random four times a second."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    knots = rng.uniform(0.0, 1.0, int(seconds * 4) + 2) ** 2
    level = np.interp(np.arange(n) / 4000.0, np.arange(len(knots)), knots)
    return (rng.normal(size=n) * level * 4000).clip(-32767, 32767).astype(np.int16)


def make_folder(path, seconds=10):
    """Writes the processed folder; its mouth opens with the sound."""
    samples = speech(seconds)
    count = seconds * clock.FPS
    mel = windows_lib.mel_windows(samples, count)
    frames, labels, gaps = zip(*(paint(o) for o in loudness(mel)), strict=True)
    points = np.full((count, 478, 2), SIZE / 2, np.float32)
    points[:, landmarks.OUTER_LIPS] = np.stack([np.linspace(20, 44, 20), np.full(20, TOP - 3)], -1)
    points[:, 17, 1] = TOP + 3 + np.array(gaps)
    points[:, 13, 1] = TOP
    points[:, 14, 1] = TOP + np.array(gaps)
    points[:, [33, 263, 168, 2]] = (16, 20), (48, 20), (32, 20), (32, 32)  # eyes, nose
    pose = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    pose[:, 2, 3] = 1.0
    blink = (np.arange(count) % 60 == 30).astype(np.float32)
    format.save_arrays(
        path,
        frames=np.stack(frames),
        labels=np.stack(labels),
        torso=np.zeros((count, SIZE, SIZE, 4), np.uint8),
        background=np.full((SIZE, SIZE, 3), 90, np.uint8),
        camera={"world_to_camera": pose, "valid": np.ones(count, bool)},
        landmarks={"pixels": points, "valid": np.ones(count, bool)},
        expression={"e": np.stack([blink * 0.5, blink], -1), "names": np.array(["AU01", "AU45"])},
        audio_mel=mel,
    )
    video.write_wav(path / "audio.wav", samples)
    format.save_meta(
        path,
        num_frames=count,
        width=SIZE,
        height=SIZE,
        intrinsics=(128, 128, 32, 32),
        source={"kind": "painted"},
    )
    return path


class Avatar:
    """Paints the mouth that its middle window asks for; remembers the batches it was given."""

    def __init__(self, data, extractor="mel", noise=0.02):
        self.config = Config()
        self.config.data = Data(
            path=str(data), audio_extractor=extractor, expression=("AU01", "AU45")
        )
        self.noise, self.batches = noise, []
        self.expressions = []  # of each batch
        self.short = 0  # frames of a batch whose list was too short

    def draw(self, windows, expression, camera, background):
        count = len(windows)
        assert windows.shape[1:] == (8, 16, 80) and windows.dtype == np.float32
        assert expression.shape == (count, 2) and camera.world_to_camera.shape == (count, 4, 4)
        assert camera.fx.shape == (count,) and background.shape == (count, SIZE, SIZE, 3)
        self.batches.append(count)
        opening = loudness(np.asarray(windows)[:, 4])
        image = np.stack([paint(o)[0] for o in opening]).astype(np.float32) / 255.0
        image = np.clip(image + self.noise, 0.0, 1.0).astype(np.float32)
        layers = {
            name: image * share for name, share in (("face", 0.5), ("eyes", 0.0), ("mouth", 0.5))
        }
        alphas = {name: np.full(image.shape[:3], 0.5, np.float32) for name in layers}
        return Frame(image, layers, alphas, np.arange(count) < self.short)

    def draw_pictures(self, windows, expression, camera, background, ease=None):
        self.expressions.append(np.array(expression))
        if ease is not None:
            gain = np.asarray(ease.gain)[:, None, None, None]
            windows = (ease.silence + gain * (windows - ease.silence)).astype(np.float32)
        frames = self.draw(windows, expression, camera, background)
        return Picture(np.rint(frames.image * 255.0).astype(np.uint8), frames.overflow)
