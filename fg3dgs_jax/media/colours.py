"""Decoded pictures -> 8-bit RGB as a screen of standard range shows them (BT.709, BT.1886).

Matrix and range are those that the file names. Where it names none, pictures of HD size are BT.709,
smaller ones BT.601. HDR (HLG and PQ) and wide gamut are converted: up to their reference white
(203 cd/m2, ITU-R BT.2408) by linear light, with a shoulder for what is brighter (the tone curve of
ITU-R BT.2390). What is transparent is black.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media.container import VideoError

HLG, PQ = 18, 16  # transfer, as ITU-T H.273 numbers it
BT709, UNKNOWN, RGB = 1, 2, 0  # matrix, or primaries
MATRICES = (RGB, BT709, 4, 5, 6, 7, 9)  # those that FFmpeg's scaler computes
HD = (1280, 720)  # px (width, height); from one of them on untagged pictures are BT.709
WHITE, PEAK = 203.0, 1000.0  # cd/m2: reference white, and the brightest of the source
GAMMA = 2.4  # of the screen, BT.1886
STEPS = 4096  # of the tables of the tone curve

_D65 = (0.3127, 0.3290)
# Red, green, blue (x, y) by the number of the primaries.
_PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3, whose white is taken for D65
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_NAMES = {9: "BT.2020", 11: "P3", 12: "P3"}


class Colours(NamedTuple):
    """How the numbers of a picture become light."""

    matrix: int  # of luma and chroma
    transfer: int
    primaries: int
    alpha: bool
    guessed: bool = False  # the file names no matrix, and the picture has luma and chroma

    @property
    def converted(self) -> bool:
        """Whether light has to be computed, and not only a matrix."""
        return self.transfer in (HLG, PQ) or self.primaries in _NAMES

    def __str__(self) -> str:
        """What is done to them, in words; empty where nothing is."""
        done = []
        if self.transfer in (HLG, PQ):
            name = "HLG" if self.transfer == HLG else "PQ"
            done.append(f"HDR ({name}) tone-mapped")
        elif self.primaries in _NAMES:
            done.append(f"{_NAMES[self.primaries]} colours converted to BT.709")
        if self.alpha:
            done.append("transparent parts made black")
        return ", ".join(done)


def colours_of(frame: av.VideoFrame, path: os.PathLike | str) -> Colours:
    """How a decoded frame is to be shown.

    Raises:
      VideoError: a matrix that FFmpeg's scaler does not know; it would take another one.
    """
    matrix, guessed = frame.colorspace, False
    is_rgb = frame.format.is_rgb or len(frame.format.components) < 3 or frame.format.has_palette
    if matrix == UNKNOWN and not is_rgb:
        guessed = True
        matrix = BT709 if frame.width >= HD[0] or frame.height >= HD[1] else 6
    if not is_rgb and (matrix not in MATRICES or matrix == RGB):
        raise VideoError(
            f"{path} has colours of matrix {matrix} (ITU-T H.273), as Dolby Vision and YCgCo; "
            "expected BT.601, BT.709 or BT.2020: convert it, or film without"
        )
    primaries = frame.color_primaries
    if frame.color_trc in (HLG, PQ) and primaries not in _PRIMARIES:
        primaries = 9
    alpha = any(component.is_alpha for component in frame.format.components)
    return Colours(matrix, frame.color_trc, primaries, alpha or frame.format.has_palette, guessed)


def numbers(
    frame: av.VideoFrame, colours: Colours, size: tuple[int, int], path: os.PathLike | str
) -> np.ndarray:
    """A frame at `size` (width, height) px -> RGB [H, W, 3], uint16 where light is computed.

    Raises:
      VideoError: pixels of a kind that FFmpeg's scaler cannot read.
    """
    wide = colours.converted
    # FFmpeg takes luma and chroma without a name for BT.601, of whatever size.
    matrix = BT709 if colours.guessed and colours.matrix == BT709 else None
    form = ("rgba64le" if colours.alpha else "rgb48le") if wide else "rgb24"
    if colours.alpha and not wide:
        form = "rgba"
    try:
        image = frame.to_ndarray(format=form, width=size[0], height=size[1], src_colorspace=matrix)
    except (av.FFmpegError, ValueError):
        raise VideoError(
            f"{path} has pixels of the kind {frame.format.name}, which cannot be read; expected "
            "yuv420p: convert it, e.g. to H.264"
        ) from None
    if not colours.alpha:
        return image
    opaque, most = image[..., 3:], 65_535 if wide else 255
    if opaque.min() == most:
        return image[..., :3]
    return np.rint(image[..., :3].astype(np.float32) * opaque / most).astype(image.dtype)


def show(image: np.ndarray, colours: Colours) -> np.ndarray:
    """RGB [H, W, 3] of `numbers` -> uint8 [H, W, 3] as a screen of standard range shows it."""
    if not colours.converted:
        return image
    light = np.take(_light(colours.transfer), image)
    if colours.transfer == HLG:  # the screen's own curve, BT.2100: gamma 1.2 at 1000 cd/m2
        luminance = cv2.transform(light, np.array([[0.2627, 0.6780, 0.0593]], np.float32))
        light = _times(light, (PEAK / WHITE) * cv2.pow(luminance, 0.2))
    light = cv2.transform(light, _to_bt709(colours.primaries))
    if colours.transfer in (HLG, PQ):
        red, green, blue = cv2.split(light)
        brightest = cv2.max(cv2.max(red, green), blue)
        place = cv2.sqrt(cv2.max(brightest, 0.0)) * ((STEPS - 1) / np.sqrt(PEAK / WHITE))
        light = _times(light, np.take(_gain(), place.astype(np.int32), mode="clip"))
    # Negative light is a colour that the screen does not have.
    return cv2.convertScaleAbs(cv2.pow(cv2.max(light, 0.0), 1 / GAMMA), alpha=255.0)


def _times(light, factor):
    return cv2.multiply(light, cv2.merge([factor, factor, factor]))


@functools.cache
def _light(transfer):
    """Linear light [65536] of each number: HLG of the scene, 0 to 1; others in reference whites."""
    number = np.arange(65_536) / 65_535
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(number <= 0.5, number**2 / 3, (np.exp((number - c) / a) + b) / 12)
    elif transfer == PQ:
        light = _pq_to_light(number) / WHITE
    else:
        light = number**GAMMA
    return light.astype(np.float32)


def _pq_to_light(number):
    """PQ in [0, 1] -> cd/m2 (SMPTE ST 2084)."""
    root = number ** (1 / 78.84375)
    return 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
        1 / 0.1593017578125
    )


def _light_to_pq(light):
    """cd/m2 -> PQ in [0, 1]."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@functools.cache
def _gain():
    """[STEPS] factors of light whose brightest channel is (k / (STEPS - 1))^2 of the peak."""
    light = np.linspace(0, 1, STEPS) ** 2 * PEAK
    peak = _light_to_pq(PEAK)
    number, most = _light_to_pq(light) / peak, _light_to_pq(WHITE) / peak
    knee = 1.5 * most - 0.5
    t = np.clip((number - knee) / (1 - knee), 0, 1)
    shoulder = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    mapped = _pq_to_light(np.where(number < knee, number, shoulder) * peak)
    gain = np.divide(mapped, light, out=np.ones_like(light), where=light > 0)
    return gain.astype(np.float32)


@functools.cache
def _to_bt709(primaries):
    """[3, 3] from linear light of the primaries to that of BT.709."""
    source = _to_xyz(_PRIMARIES.get(primaries, _PRIMARIES[BT709]))
    return np.linalg.solve(_to_xyz(_PRIMARIES[BT709]), source).astype(np.float32)


def _to_xyz(primaries):
    """[3, 3] from linear light of primaries (x, y) with white D65 to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])
