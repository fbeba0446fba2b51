"""Eq. (16): five frames, a frozen expert, and only the mouth's net and the colours learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import landmarks, processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.experts.lips import wav2lip
from fg3dgs_jax.lipsync import alignment
from fg3dgs_jax.lipsync import expert as expert_lib
from fg3dgs_jax.media import video
from fg3dgs_jax.media import windows as windows_lib
from fg3dgs_jax.training import (
    batches,
    feed,
    first_gaussians,
    loop,
    objective,
    parallel,
    rates,
    step,
)
from tests import fake_avatar


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_avatar.make_folder(tmp_path_factory.mktemp("clip"), seconds=4)


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """An untrained expert's file."""
    path = tmp_path_factory.mktemp("expert") / "sync_expert.npz"
    expert_lib.save(path, expert_lib.init(jax.random.key(0), jnp.zeros(80), jnp.ones(80)))
    return path


def opened(folder):
    clip = processed.load_clip(folder)
    return clip, video.read_wav(folder / "audio.wav")


def test_an_expert_is_asked_about_the_right_frames_and_sound(folder, expert):
    clip, samples = opened(folder)
    sync = alignment.load(str(expert), clip, samples)
    starts = jnp.array([10, 33])
    frames = jnp.stack([jnp.asarray(clip.frames[s : s + 5]) for s in (10, 33)]) / 255.0
    variables = expert_lib.load(expert)
    windows = windows_lib.mel_windows(samples, clip.num_frames)[
        np.array([12, 35])
    ]  # the middle frames
    boxes = expert_lib.mouth_boxes(clip.landmarks)
    boxes = np.stack([boxes[10:15], boxes[33:38]])
    sound = expert_lib.embed_sound(variables, windows)
    expected = expert_lib.sync_loss(variables, frames, boxes, sound)
    np.testing.assert_allclose(jax.jit(sync.call)(frames, starts), expected, rtol=1e-4)
    other = sync.call(frames, starts + 7)
    assert abs(float(other - expected)) > 1e-4  # other sound, other word


def test_wav2lips_expert_pulls_at_the_mouth_and_nowhere_else(folder):
    clip, samples = opened(folder)
    oval = np.array(landmarks.FACE_OVAL)
    clip.landmarks[:, oval] = [16, 20]
    clip.landmarks[:, oval[0]] = [48, 60]  # a box of 32 x 40 px, its lower half below row 37
    towers = {
        name: wav2lip.Tower(blocks).init(jax.random.key(i), jnp.zeros(shape))
        for i, (name, blocks, shape) in enumerate(
            [
                ("face", wav2lip.FACE_BLOCKS, (1, 48, 96, 15)),
                ("sound", wav2lip.SOUND_BLOCKS, (1, 80, 16, 1)),
            ]
        )
    }
    variables = {
        kind: {name: tower[kind] for name, tower in towers.items()}
        for kind in ("params", "batch_stats")
    }
    call = alignment.wav2lip_loss(variables, clip, samples)
    frames = jnp.asarray(clip.frames[None, 20:25]) / 255.0
    loss, gradient = jax.jit(jax.value_and_grad(call))(frames, jnp.array([20]))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    rows = np.flatnonzero(np.abs(gradient).sum((0, 1, 3, 4)))
    assert rows.min() >= 36 and rows.max() < 60


def test_windows_show_the_face_and_end_with_the_train_split(folder):
    clip, _ = opened(folder)
    learnt = batches.learnt_frames(clip)
    clip.landmarks_valid[12] = False
    found = alignment.windows(clip, learnt)
    last = int(clip.split("train")[-1])
    wanted = (np.arange(len(found)) <= last - 4) & ~np.isin(np.arange(len(found)), range(8, 13))
    np.testing.assert_array_equal(found, wanted)


def test_no_expert_has_no_call_and_a_wrong_one_a_clear_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip, samples = opened(folder)
    assert alignment.load("", clip, samples).call is None
    with pytest.raises(ValueError, match=r"there is no lip-sync expert nowhere\.npz; expected"):
        alignment.load("nowhere.npz", clip, samples)
    expert_lib.save(
        tmp_path / "sync_expert.npz",
        expert_lib.init(jax.random.key(0), jnp.zeros(80), jnp.ones(80)),
    )
    assert alignment.find("") == tmp_path / "sync_expert.npz"


@pytest.fixture(scope="module")
def aligning(folder, expert):
    """(config, state before, state after two steps of alignment, metrics)."""
    config = quickstart.get_config()
    config.data.path, config.data.expression = str(folder), ("AU01", "AU45")
    config.stages.alignment = Config().stages.alignment  # the paper's
    config.warm_up.steps, config.stages.alignment.steps = 0, 2
    config.sync_expert, config.stages.alignment.losses.lpips = str(expert), 0.0
    for population in (config.gaussians.face, config.gaussians.mouth):
        population.num, population.capacity = 60, 64
    config.regions = ("face", "mouth")  # the painted head has no eyes
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, config.data)
    networks, device = loop.ready_for_alignment(config, objective.Networks(), clip, device)
    nets = draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    state = step.init_state(regions, alive)
    row, size = config.stages.alignment, (clip.height, clip.width)
    one = step.make_dispatch(objective.Setup(config, row, 3, nets, networks, size))
    ((_, inputs),) = feed.feed(config, row, 3, clip, device, True, 0)
    before = jax.device_get(state)
    after, metrics, _ = one(parallel.replicate(state), parallel.replicate(device), inputs)
    return config, before, parallel.first((after, metrics))


def test_only_the_mouths_net_and_the_colours_move(aligning):
    _, before, (after, _) = aligning
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.regions, after.regions)
    for region, leaves in moved.items():
        gaussians = leaves.gaussians
        assert gaussians.sh
        assert not any((gaussians.means, gaussians.quats, gaussians.raw_scales))
        assert not gaussians.logit_opacities
        for path, leaf in jax.tree_util.tree_leaves_with_path(leaves.motion):
            learnt = region == "mouth" and path[0].key != "statistics"
            assert leaf == learnt or (learnt and "gate" in str(path)), (region, path)
    assert (before.alive["face"] == after.alive["face"]).all()


def test_the_expert_and_its_ceiling_are_told(aligning):
    config, _, (_, metrics) = aligning
    assert np.isfinite(metrics["sync"]) and np.isfinite(metrics["sync_truth"])
    weights = config.stages.alignment.losses
    expected = metrics["l1"] + 0.2 * metrics["d_ssim"] + weights.sync * metrics["sync"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_a_stage_may_freeze_one_regions_net(aligning):
    config, state, _ = aligning
    table = rates.table(state.regions, config.stages.alignment.rates)
    moves = jax.tree.map(lambda rate: rate.moves, table)
    assert not any(jax.tree.leaves(moves["face"].motion))
    assert all(jax.tree.leaves(moves["mouth"].motion["params"]))
