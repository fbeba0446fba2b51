"""The inputs of a dispatch: the same wherever the pictures lie, and made for every device."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Resident
from fg3dgs_jax.system import memory
from fg3dgs_jax.training import batches, feed, parallel
from fg3dgs_jax.types import REGIONS
from tests.painted import FRAMES, small


def dispatches(folder, stage="motion", batch=2, resident=False, done=0):
    config = small(folder, **{stage: 7})
    config.batch = batch
    clip = processed.load_clip(folder)
    on_device = batches.device_clip(clip, config.data, resident=resident)
    fed = feed.feed(config, getattr(config.stages, stage), 1, clip, on_device, resident, done)
    return clip, [(span.steps, *jax.device_get(inputs)) for span, inputs in fed]


def test_each_dispatch_has_its_frames_and_their_pictures(folder):
    clip, fed = dispatches(folder)
    assert [steps for steps, *_ in fed] == [5, 2]
    for steps, index, pictures in fed:
        assert set(index) == set(pictures) == set(REGIONS)
        for r in REGIONS:
            assert index[r].shape == (1, steps, 2)
            assert set(index[r].ravel()) <= set(clip.split("train"))
            assert (index[r][..., 0] != index[r][..., 1]).all()  # no frame twice in a step
            np.testing.assert_array_equal(pictures[r].frames, clip.frames[index[r]])
            np.testing.assert_array_equal(pictures[r].labels, clip.labels[index[r]])
            assert pictures[r].torso is None  # no background behind a layer of its own
    _, ((_, index, pictures),) = dispatches(folder, "fusion", done=5)
    assert set(index) == set(pictures) == {"face"}  # fused layers share their frame
    np.testing.assert_array_equal(pictures["face"].torso, clip.torso[index["face"]])


def test_a_dispatch_is_cut_where_lpips_begins(folder):
    """Density control stays where it was; a run that stopped at the cut goes on from there."""
    config = small(folder, motion=12)
    stage = config.stages.motion
    stage.losses.lpips, stage.patches.start = 0.0, 0.5
    assert [span[:2] for span in feed.spans(config, stage, 0)] == [(0, 5), (5, 5), (10, 2)]
    stage.losses.lpips = 0.2
    cut = [(0, 5, False, True), (5, 1, False, False), (6, 4, True, True), (10, 2, True, True)]
    assert feed.spans(config, stage, 0) == cut
    assert feed.spans(config, stage, 6) == cut[2:]
    stage.patches.start = 0.0
    assert {span.lpips for span in feed.spans(config, stage, 0)} == {True}
    config = Config()  # 0.94 x 47,000 is not 44,180 in floating point
    ends = [span.start + span.steps for span in feed.spans(config, config.stages.motion, 44_100)]
    assert ends[:3] == [44_180, 44_200, 44_300]


def test_frames_depend_on_the_step_alone(folder):
    _, fed = dispatches(folder)
    _, resident = dispatches(folder, resident=True)
    for (_, index, _), (_, again, pictures) in zip(fed, resident, strict=True):
        assert pictures is None
        jax.tree.map(np.testing.assert_array_equal, index, again)
    _, ((_, resumed, _),) = dispatches(folder, done=5)
    jax.tree.map(np.testing.assert_array_equal, resumed, fed[1][1])


def test_numbers_are_dealt_to_processes_and_their_devices(monkeypatch):
    numbers = np.arange(3 * 8).reshape(3, 8)  # 3 steps of 2 processes x 2 devices x 2 frames
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    np.testing.assert_array_equal(
        parallel.ours(numbers),
        [[[4, 5], [12, 13], [20, 21]], [[6, 7], [14, 15], [22, 23]]],
    )


def test_more_frames_than_show_a_region_are_refused(folder):
    with pytest.raises(ValueError, match=rf"{FRAMES} frames .* only \d+ training frames show the"):
        dispatches(folder, batch=FRAMES)


def test_pictures_stay_where_they_fit(folder, monkeypatch):
    clip = processed.load_clip(folder)
    size = sum(x.nbytes for x in (clip.frames, clip.labels, clip.torso))
    for stats, fits in (
        ({"bytes_limit": 3 * size, "bytes_in_use": size}, True),
        ({"bytes_limit": 3 * size, "bytes_in_use": size + 2}, False),
        (None, False),  # a CPU's: they stay where they were decoded
    ):
        device = SimpleNamespace(memory_stats=lambda stats=stats: stats)
        monkeypatch.setattr(batches.jax, "local_devices", lambda device=device: [device])
        assert batches.fits(clip, Resident.AUTO) == fits
    monkeypatch.setattr(memory, "available", lambda: 1000)
    assert batches.room_to_keep() == 250
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    assert batches.room_to_keep() == batches.MOST_KEPT
    assert batches.fits(clip, Resident.DEVICE) and not batches.fits(clip, Resident.HOST)


def test_the_torso_lies_over_the_plate_as_in_the_clip(folder):
    rng = np.random.default_rng(0)
    clip = processed.load_clip(folder)
    torso = rng.integers(0, 256, clip.torso.shape).astype(np.uint8)
    torso[..., 3] = rng.choice([0, 255, 100], clip.torso.shape[:3])
    object.__setattr__(clip, "torso", torso)
    found = jax.vmap(batches.torso_over, (None, 0))(clip.background, torso)
    np.testing.assert_allclose(np.asarray(found) * 255.0, clip.backgrounds(), atol=1e-3)
