"""The own expert's word on a render: it sees what training saw, frame by frame."""

import jax
import numpy as np
import pytest

from fg3dgs_jax.clip import processed
from fg3dgs_jax.evaluation.own_sync import OwnSync
from fg3dgs_jax.lipsync import expert as expert_lib
from fg3dgs_jax.media import video
from tests import fake_avatar


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "painted"
    path.mkdir()
    return processed.load_clip(fake_avatar.make_folder(path, seconds=4))


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "sync_expert.npz"
    expert_lib.save(path, expert_lib.init(jax.random.key(0), np.zeros(80), np.ones(80)))
    return path


def test_truth_and_render_are_judged_alike_and_in_their_place(clip, expert):
    samples, index = video.read_wav(clip.path / "audio.wav"), np.arange(30, 90)
    watcher = OwnSync(expert, clip, index, samples)
    for i in index:
        truth = clip.frames[i].astype(np.float32) / 255
        watcher.add(truth, truth if i < 40 else 1 - truth)
    found, source = watcher.result()
    assert found["runs"] == found["truth_runs"] == 60 - 50 + 1 and "not LSE" in source
    assert 0 < found["score"] < 1 and found["score"] != found["truth_score"]
    # The score without a shift, window by window, from the frames themselves.
    variables = expert_lib.load(expert)
    boxes = expert_lib.mouth_boxes(clip.landmarks)[index][None]
    frames = clip.frames[index][None].astype(np.float32) / 255
    seen = jax.jit(expert_lib.embed_mouths)(variables, frames, boxes)[0]
    heard = expert_lib.embed_sound(variables, clip.audio_features("mel")[index[2:-2]])
    scores = expert_lib.probability(variables, (seen * heard).sum(-1))
    np.testing.assert_allclose(found["truth_score"], scores.mean(), rtol=1e-4)


def test_too_few_frames_are_not_judged(clip, expert):
    watcher = OwnSync(expert, clip, np.arange(3), video.read_wav(clip.path / "audio.wav"))
    watcher.add(clip.frames[0] / 255.0, clip.frames[0] / 255.0)
    assert watcher.result() == (None, "not measured: 1 frames; the expert needs 5")
