"""Colours: matrix, range, HDR, wide gamut and transparency as FFmpeg or a player shows them."""

import av
import numpy as np
import pytest

from fg3dgs_jax.media import colours, video
from tests.media import odd_files
from tests.media.odd_files import Recipe

FLAT = (200, 120, 90)


def _flat(number, size):
    image = np.empty((*size, 3), np.uint8)
    image[:] = FLAT
    return image


def _read(path, recipe, draw):
    odd_files.make(path, recipe, draw=draw)
    clip = video.read_video(path)
    return clip, next(clip.frames())


@pytest.mark.parametrize(
    "size, tagged, used",
    [
        ((720, 720), None, 1),  # HD without a tag is BT.709, as players take it
        ((96, 1280), None, 1),
        ((480, 640), None, 6),
        ((720, 720), 6, 6),
        ((48, 64), 1, 1),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_give_the_colour_that_was_filmed(tmp_path, size, tagged, used, full):
    drawn = (("colorspace", used), ("color_range", 1 + full))
    kept = (("color_range", 1 + full), *((("colorspace", tagged),) if tagged else ()))
    recipe = Recipe("mkv", tags=kept, size=size, seconds=1, fps=25, options=(("crf", "4"),))

    def draw(number, size, kept={}):  # noqa: B006 a cache
        if not kept:
            frame = odd_files.frame_of(_flat(number, size), Recipe(tags=drawn))
            frame.colorspace = tagged or 2
            kept[0] = frame
        return kept[0]

    clip, frame = _read(tmp_path / "a.mkv", recipe, draw)
    assert clip.source.colours.matrix == used and clip.source.colours.guessed == (tagged is None)
    assert np.abs(frame.reshape(-1, 3).astype(int) - FLAT).max() <= 3


def _hdr_frame(nits, transfer, size):
    """Light in BT.2020 [3] cd/m2 as a 10-bit frame."""
    light = np.asarray(nits, float)
    if transfer == colours.PQ:
        power = (light / 10_000) ** 0.1593017578125
        number = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        display = light / 1000
        luminance = display @ [0.2627, 0.6780, 0.0593]
        scene = display * luminance ** (1 / 1.2 - 1)
        log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        number = np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)
    red, green, blue = number
    y = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    planes = (64 + 876 * y, 512 + 896 * (blue - y) / 1.8814, 512 + 896 * (red - y) / 1.4746)
    frame = av.VideoFrame(size[1], size[0], "yuv420p10le")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size // 2, round(value), np.uint16).tobytes())
    frame.colorspace = frame.color_primaries = 9
    frame.color_trc, frame.color_range = transfer, 1
    return frame


# Light in BT.2020, cd/m2, and what FFmpeg's own conversion makes of it: `reformat(format="rgb24",
# dst_color_trc=1, dst_color_primaries=1)` of these frames. It takes 7 s, and cuts off what is
# brighter than the reference white.
LIGHT = {
    (5, 5, 5): (55, 55, 55),
    (20, 20, 20): (97, 97, 97),
    (60, 40, 30): (169, 127, 111),
    (85, 80, 70): (181, 172, 162),
    (203, 203, 203): None,
    (1000, 1000, 1000): None,
}


@pytest.mark.parametrize("transfer, name", [(colours.HLG, "HLG"), (colours.PQ, "PQ")])
def test_hdr_is_tone_mapped(tmp_path, transfer, name):
    tags = (("colorspace", 9), ("color_primaries", 9), ("color_trc", transfer), ("color_range", 1))
    recipe = Recipe(
        "mp4",
        video="libx265",
        pixels="yuv420p10le",
        seconds=1,
        fps=len(LIGHT),
        tags=tags,
        options=(("crf", "2"), ("x265-params", "log-level=none:keyint=1")),
    )
    drawn = [_hdr_frame(nits, transfer, recipe.size) for nits in LIGHT]
    odd_files.make(tmp_path / "a.mp4", recipe, draw=lambda number, size: drawn[number])
    clip = video.read_video(tmp_path / "a.mp4")
    assert str(clip.source.colours) == f"HDR ({name}) tone-mapped"
    frames = list(clip.frames())
    values = [frames[round(25 * (k + 0.5) / len(LIGHT))].mean((0, 1)) for k in range(len(LIGHT))]
    for value, expected in zip(values, LIGHT.values(), strict=True):
        assert expected is None or np.abs(value - expected).max() <= 3
    # Bright light is still told apart.
    assert 215 < values[-2].mean() < 240 and values[-1].mean() > 253
    cropped = clip.cropped((8, 8, 32, 32), 16)
    assert np.abs(next(cropped.frames(12, 1)) - frames[12][20, 20].astype(int)).max() <= 2


def test_wide_gamut_keeps_its_colours(tmp_path):
    tags = (("colorspace", 9), ("color_primaries", 9), ("color_trc", 14), ("color_range", 1))
    recipe = Recipe("mkv", pixels="yuv420p10le", seconds=1, tags=tags, options=(("crf", "2"),))
    clip, frame = _read(tmp_path / "a.mkv", recipe, _flat)
    assert "BT.2020 colours converted" in str(clip.source.colours)
    # FFmpeg's own conversion as above: (240, 107, 78), perceptual and not colorimetric.
    assert np.abs(frame.mean((0, 1)) - (234, 103, 81)).max() <= 2
    assert frame[..., 0].mean() > FLAT[0] + 10  # the same numbers mean more red there


@pytest.mark.parametrize("codec, pixels", [("qtrle", "argb"), ("prores_ks", "yuva444p10le")])
def test_what_is_transparent_is_black(tmp_path, codec, pixels):
    def draw(number, size):
        image = np.full((*size, 4), 200, np.uint8)
        image[..., 3] = np.linspace(0, 255, size[1]).astype(np.uint8)
        return av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pixels)

    profile = (("profile", "4444"),) if codec == "prores_ks" else ()
    recipe = Recipe("mov", video=codec, pixels=pixels, seconds=1, options=profile)
    clip, frame = _read(tmp_path / "a.mov", recipe, draw)
    assert "transparent parts made black" in str(clip.source.colours)
    expected = 200 * np.linspace(0, 1, odd_files.WIDTH)
    assert np.abs(frame.mean((0, 2)) - expected).max() < 4


def test_a_matrix_that_is_not_computed_is_refused(tmp_path):
    recipe = Recipe("mkv", seconds=1, tags=(("colorspace", 8),))  # YCgCo
    odd_files.make(tmp_path / "a.mkv", recipe)
    with pytest.raises(video.VideoError, match=r"colours of matrix 8 .*expected BT.601"):
        video.read_video(tmp_path / "a.mkv")


def test_a_change_of_size_midway_is_scaled_to_the_first(tmp_path):
    first = Recipe("ts", "mpegts", audio="mp2", seconds=1)
    second = Recipe(
        "ts", "mpegts", audio="mp2", seconds=1, size=(96, 128), video_start=1, sound_start=1
    )
    parts = [
        odd_files.make(tmp_path / f"{k}.ts", r, draw=_flat) for k, r in enumerate((first, second))
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(p.read_bytes() for p in parts))
    clip = video.read_video(tmp_path / "a.ts")
    frames = list(clip.frames())
    assert {f.shape for f in frames} == {(48, 64, 3)} and len(frames) in (50, 49, 48)
    assert np.abs(frames[-1].astype(int) - FLAT).max() <= 4
