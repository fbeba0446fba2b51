"""Close-ups of made-up frames."""

import types

import numpy as np
import pytest

from fg3dgs_jax.evaluation import highlights, report

SIZE = 40
LIPS, EYES = (24, 36, 10, 30), [(4, 10, 4, 16), (4, 10, 24, 36)]


def made_up_clip(count=20, channels=("AU45",)):
    openings = np.sin(np.arange(count)).astype(np.float32)
    return types.SimpleNamespace(
        expression_names=channels,
        expression=np.eye(count, 1, -1, dtype=np.float32),  # the second frame blinks
        eyes_boxes=lambda margin: np.tile(EYES, (count, 1, 1)),
        lips_boxes=lambda margin: np.tile(LIPS, (count, 1)) + np.arange(count)[:, None] % 3,
        mouth_openings=lambda: openings,
    )


@pytest.mark.parametrize("frames", [20, 3, 1])
def test_splits_of_any_length(frames):
    clip, index = made_up_clip(frames), np.arange(frames)
    watcher = highlights.Highlights(clip, index)
    for truth, image in np.zeros((frames, 2, SIZE, SIZE, 3), np.float32):
        watcher.add(truth, image)
    picture = watcher.picture()
    cells = min(2 * highlights.AROUND + 1, frames)
    assert [len(s.cells) for s in watcher.rows.values()] == [cells] * 3
    widest = max(s.cells[0][0].shape[1] for s in watcher.rows.values())
    assert picture.shape[1] == highlights.LABEL + cells * widest and picture.dtype == np.uint8


def test_truth_above_render_and_the_frames_around():
    clip, index = made_up_clip(), np.arange(20)
    watcher = highlights.Highlights(clip, index)
    for i in index:
        image = np.full((SIZE, SIZE, 3), i / 100, np.float32)
        watcher.add(image, image + 0.5)
    row = watcher.rows["deepest blink 1.00"]
    assert (row.centre, list(row.frames)) == (1, list(range(7)))
    picture = watcher.picture()
    tall, wide = 6 * 7, 32 * 7
    for k in range(7):
        x = highlights.LABEL + k * wide + wide // 2
        assert picture[report.CAPTION + tall // 2, x, 0] == round(k / 100 * 255)
        assert picture[report.CAPTION + tall + tall // 2, x, 0] == round((k / 100 + 0.5) * 255)
    without = highlights.Highlights(made_up_clip(channels=("AU01",)), index)
    assert list(without.rows) == ["widest mouth", "closed mouth"]
