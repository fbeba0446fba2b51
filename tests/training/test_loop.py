"""Training on a small painted clip: stages learn what they say, a killed run goes on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs import default, quickstart
from fg3dgs_jax import geometry, native, train
from fg3dgs_jax.avatar import draw, store
from fg3dgs_jax.clip import format, landmarks, processed
from fg3dgs_jax.rasterizer import CapacityMonitor
from fg3dgs_jax.training import (
    batches,
    checkpoint,
    first_gaussians,
    guides,
    masks,
    objective,
    optim,
    parallel,
    step,
)
from fg3dgs_jax.types import REGIONS, GaussianDeltas
from tests.painted import FRAMES, SIZE, small


class Killed(Exception):
    pass


@pytest.fixture
def compiled_once(tmp_path):
    """Programs compiled within the test are kept on disk for its further runs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.fixture
def compiling(monkeypatch):
    """A list that grows by (stage number, whether anything was compiled) with each dispatch."""
    events, found, make_dispatch = [], [], step.make_dispatch

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    def watched(config, stage, number, *rest):
        dispatch = make_dispatch(config, stage, number, *rest)

        def call(*arguments):
            before = len(events)
            result = dispatch(*arguments)
            found.append((number, len(events) > before))
            return result

        return call

    monkeypatch.setattr(step, "make_dispatch", watched)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_killed_run_goes_on_to_the_same_bits(
    folder, tmp_path, monkeypatch, compiled_once, compiling
):
    config = small(folder, static=5, motion=10, fusion=5)
    train.fit(config, tmp_path / "whole")
    # A stage is compiled once, however many pairs its dispatches needed: on a CPU lists just grow.
    assert compiling == [(0, True), (1, True), (1, False), (2, True)]

    save, calls = checkpoint.Checkpoints.save, []

    def dies_before_the_second(self, *args):
        if len(calls) == 1:
            raise Killed
        calls.append(args[0])
        save(self, *args)

    # So it goes on from a stage's end, from within the next one, and from that one's end.
    for saved in (5, 10, 15):
        monkeypatch.setattr(checkpoint.Checkpoints, "save", dies_before_the_second)
        with pytest.raises(Killed):
            train.fit(config, tmp_path / "killed")
        assert calls == [saved]
        calls.clear()
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    train.fit(config, tmp_path / "killed")

    with np.load(tmp_path / "whole/avatar.npz") as a, np.load(tmp_path / "killed/avatar.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    rows = [json.loads(r) for r in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [5, 10, 15, 20]  # none twice, none missing
    assert all(np.isfinite(r["loss"]) for r in rows)
    assert (tmp_path / "whole/samples/000020.png").exists()
    assert store.load(tmp_path / "whole").config.name == "quickstart"

    config.stages.motion.steps = 15
    with pytest.raises(checkpoint.ConfigMismatch, match=r"differs in stages\.motion\.steps"):
        train.fit(config, tmp_path / "whole")


def test_a_list_that_fills_up_grows_between_dispatches_and_compiles_once(
    folder, tmp_path, monkeypatch, compiling
):
    """As on a GPU, whose lists the monitor watches; the CPU's program has the same static number
    in it, and ignores it."""
    monitor = CapacityMonitor({"face": 16, "eyes": 4096, "mouth": 4096})
    monkeypatch.setattr(train, "monitor_lists", lambda *_: monitor)
    saved = []

    def stop_after_three(_, done, *rest):
        saved.append((done, monitor.capacities))
        if done == 15:
            raise Killed

    monkeypatch.setattr(checkpoint.Checkpoints, "save", stop_after_three)
    with pytest.raises(Killed):
        train.fit(small(folder, static=15), tmp_path / "run")
    assert compiling == [(0, True), (0, True), (0, False)]
    rows = [json.loads(r) for r in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    need = max(row["face/isects"] for row in rows)
    assert 16 < need <= 0.8 * monitor.capacities["face"] <= 4 * need
    assert monitor.capacities == {"face": monitor.capacities["face"], "eyes": 4096, "mouth": 4096}
    assert [row["face/overflow"] for row in rows] == [0, 0, 0]


def test_a_dispatch_tells_of_its_neediest_picture_and_every_overflow():
    metrics = {"loss": jnp.arange(4.0), "face/isects": jnp.array([3, 9, 4, 4])}
    found = step.summary(metrics | {"face/overflow": jnp.array([[True, False], [True, True]])})
    assert found == {"loss": 1.5, "face/isects": 9, "face/overflow": 3}


def test_lists_are_watched_where_they_have_an_end(folder, monkeypatch):
    clip = processed.load_clip(folder)
    alive = {r: np.ones(64, bool) for r in REGIONS}
    assert train.monitor_lists(alive, clip).capacities == {}
    monkeypatch.setattr(native, "resolve_backend", lambda: "cuda")
    tiles = (SIZE // 16) ** 2
    assert train.monitor_lists(alive, clip).capacities == dict.fromkeys(REGIONS, 64 * tiles)


GEOMETRY = ("means", "quats", "raw_scales")
MOVES = {  # the paper's: which fields of the Gaussians, whose nets
    "static": ({(r, f) for r in REGIONS for f in (*GEOMETRY, "logit_opacities", "sh")}, ()),
    "motion": ({(r, f) for r in REGIONS for f in (*GEOMETRY, "logit_opacities", "sh")}, REGIONS),
    "fusion": ({(r, "sh") for r in REGIONS} | {("face", "logit_opacities")}, ()),
    "alignment": ({(r, "sh") for r in REGIONS}, ("mouth",)),
}


@pytest.fixture(scope="module")
def regions(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", config.data.expression)
    return first_gaussians.init_regions(
        jax.random.key(0), clip, device, config, draw.make_nets(config)
    )[0]


@pytest.mark.parametrize("name", MOVES)
def test_a_stage_changes_only_what_its_row_names(regions, name):
    stage = default.get_config().stages[name]
    grads = jax.tree.map(jnp.ones_like, regions)
    after, _ = jax.jit(lambda *now: optim.update(*now, stage, 0.5))(
        grads, optim.init(regions), regions
    )
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after, regions)
    fields, nets = MOVES[name]
    assert fields == {
        (r, f)
        for r in REGIONS
        for f in moved[r].gaussians.__dataclass_fields__
        if getattr(moved[r].gaussians, f)
    }
    for r in REGIONS:
        assert set(jax.tree.leaves(moved[r].motion["params"])) == {r in nets}
        assert not any(jax.tree.leaves(moved[r].motion.get("statistics", {})))  # of the sound


def test_a_stage_starts_adam_afresh_or_goes_on_as_its_row_says(regions):
    rows = default.get_config().stages
    alive = {r: jnp.ones(v.gaussians.means.shape[0], bool) for r, v in regions.items()}
    grads, state = jax.tree.map(jnp.ones_like, regions), step.init_state(regions, alive)
    learnt, opt_state = optim.update(grads, state.opt_state, regions, rows.fusion, 0.5)
    state = state.replace(step=jnp.int32(7), regions=learnt, opt_state=opt_state)
    assert [name for name, row in rows.items() if row.keeps_moments] == ["alignment"]

    begun = step.begin_stage(state, rows.alignment)  # the fusion's second half
    assert begun.step == 0 and begun.opt_state is opt_state and begun.regions is learnt
    assert begun.opt_state["gaussians"]["face"].count == 1
    assert np.all(begun.opt_state["gaussians"]["face"].mu.sh)
    for r in REGIONS:  # the paper's fusion froze the nets: theirs have not begun
        net = begun.opt_state["motion"][r]
        assert net.count == 0 and not any(map(np.any, jax.tree.leaves(net)))

    begun = step.begin_stage(state, rows.motion)
    assert begun.step == 0 and begun.regions is learnt
    assert not any(map(np.any, jax.tree.leaves(begun.opt_state)))


def test_statistics_are_of_the_train_splits_sound(folder, regions):
    clip = processed.load_clip(folder)
    heard = np.asarray(clip.audio_features("mel"))[clip.split("train")]
    mean = regions["mouth"].motion["statistics"]["audio"]["mean"]
    np.testing.assert_allclose(mean, heard.mean((0, 1)), atol=1e-6)


def test_a_frozen_leaf_gets_no_gradient_and_the_others_the_same(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", config.data.expression)
    nets = draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    batch = batches.take(device, jnp.int32(3))
    stage = default.get_config().stages.fusion  # the paper's: colours, opacities of the face

    def loss(regions, freeze):
        regions = optim.freeze(regions, stage) if freeze else regions
        image, _ = draw.draw(nets, regions, alive, batch.conditions, batch.camera, batch.background)
        return jnp.sum(jnp.square(image - batch.image))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    frozen, free = gradient(regions, True), gradient(regions, False)
    moves = optim.learnt(regions, stage)
    for move, got, wanted in zip(*map(jax.tree.leaves, (moves, frozen, free)), strict=True):
        if move:
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        else:
            assert not np.any(got)
    names = {
        (r, f)
        for r in REGIONS
        for f in moves[r].gaussians.__dataclass_fields__
        if getattr(moves[r].gaussians, f)
    }
    assert names == {("face", "logit_opacities")} | {(r, "sh") for r in REGIONS}
    assert np.any(frozen["face"].gaussians.sh) and np.any(free["face"].gaussians.means)


def test_sampling_follows_the_window_and_never_leaves_the_train_split(folder):
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", ("AU45",))
    rule = quickstart.get_config().stages.motion.frames.mouth
    picked = {
        int(batches.sample_frames(jax.random.key(k), 0, device, "mouth", rule, 0.0, 1)[0])
        for k in range(60)
    }
    openings = clip.mouth_openings()
    train_frames = clip.split("train")
    widest = {int(i) for i in train_frames if openings[i] == 3}
    assert picked == widest
    everything = {
        int(batches.sample_frames(jax.random.key(k), 1, device, "face", None, 0.0, 1)[0])
        for k in range(200)
    }
    assert everything == set(map(int, train_frames))


def test_audio_windows_are_zero_outside_the_clip(folder):
    device = batches.device_clip(processed.load_clip(folder), "mel", ("AU45",))
    device = device._replace(audio=jnp.ones_like(device.audio))
    first = batches.take(device, jnp.int32(0)).conditions.audio
    last = batches.take(device, jnp.int32(FRAMES - 1)).conditions.audio
    np.testing.assert_array_equal(first[:, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(last[:, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_noise_is_measured_in_deviations_of_the_train_split(folder):
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", ("AU45",))
    clean = batches.take(device, jnp.int32(9)).conditions.audio
    noisy = batches.take(device, jnp.int32(9), jax.random.key(0), 2.0).conditions.audio
    expected = 2.0 * np.asarray(device.audio)[clip.split("train")].std()
    np.testing.assert_allclose((noisy - clean).std(), expected, rtol=0.1)


def test_jitter_moves_the_blink_and_nothing_else(folder):
    device = batches.device_clip(processed.load_clip(folder), "mel", ("AU01", "AU45"))
    clean = batches.take(device, jnp.int32(9)).conditions
    off = [
        batches.take(device, jnp.int32(9), jax.random.key(k), jitter=0.05).conditions
        for k in range(50)
    ]
    np.testing.assert_array_equal(off[0].audio, clean.audio)
    moved = np.stack([o.expression - clean.expression for o in off])
    assert not moved[:, 0].any() and 0.03 < np.abs(moved[:, 1]).max() <= 0.05 + 1e-6


def test_one_guide_frame_in_each_step_blinks(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", ("AU45",))
    blinks = np.zeros(FRAMES, np.float32)
    blinks[5] = 1.0
    device = device._replace(scores={**device.scores, "blink": jnp.asarray(blinks)})
    first, others = [], []
    for k in range(60):
        index = batches.guide_frames(jax.random.key(k), device, config.guides)[0].index
        assert set(map(int, index)) <= set(map(int, clip.split("train")))
        first.append(int(index[0]))
        others += map(int, index[1:])
    assert 0.5 < np.mean(np.array(first) == 5) < 0.9  # deeper than half: 2 of 3
    assert len(set(first)) > 5 and np.mean(np.array(others) == 5) < 0.2


def test_lids_follow_their_own_conditions(folder):
    device = batches.device_clip(processed.load_clip(folder), "mel", ("AU01", "AU45"))
    device = device._replace(expression_scale=jnp.array([2.0, 2.0]))
    frames, lids = batches.guide_frames(jax.random.key(0), device, small(folder).guides)
    heard, told = frames.conditions.audio, device.expression[frames.index]
    np.testing.assert_array_equal(lids.audio, np.roll(heard, 1, axis=0))
    np.testing.assert_array_equal(frames.conditions.expression, told)
    off = lids.expression - told
    assert not off[:, 1].any() and 0.3 < off[:, 0].std() < 3.0  # half of 2

    loudness = jnp.linspace(-0.02, 0.02, len(frames.index))
    audio = jnp.broadcast_to(loudness[:, None, None, None], heard.shape)
    lid = np.isin(np.array(landmarks.GUIDES), landmarks.RIGHT_EYE + landmarks.LEFT_EYE)
    follow = jnp.where(lid, jnp.roll(loudness, 1)[:, None], loudness[:, None])  # [B, P]
    moved = frames.guides + follow[..., None] * jnp.array([1.0, 0.0, 0.0])
    pixels = jax.vmap(geometry.project_points)(moved, frames.camera)
    frames = frames._replace(
        conditions=frames.conditions._replace(audio=audio), guide_pixels=pixels
    )
    lids = lids._replace(audio=jnp.roll(audio, 1, axis=0))

    class Louder:  # moves every point to the right by what it hears
        def apply(self, _, means, conditions):
            right = jnp.array([1.0, 0.0, 0.0]) * conditions.audio.mean()
            return GaussianDeltas(jnp.broadcast_to(right, means.shape)), None

    for rows in (slice(None), slice(40), slice(40, None)):
        assert guides.guides_loss(Louder(), None, rows, frames, lids) < 1e-6
    wrong = frames._replace(guide_pixels=jnp.roll(pixels, 1, axis=0))
    assert guides.guides_loss(Louder(), None, slice(None), wrong, lids) > 1e-3


def test_guides_teach_the_lips_to_open_with_the_sound(folder):
    """Landmarks alone, no picture: the face's net learns which sounds part the painted lips."""
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", config.data.expression)
    nets = draw.make_nets(config)
    config.warm_up.update(steps=600, rate=(1e-3, 1e-4))
    config.guides.audio_noise = 0.1
    config.moves = False  # so that init_regions leaves the net as it starts
    regions, _ = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    motion = regions["face"].motion
    rows = slice(None)
    learnt = guides.learn_from_guides(jax.random.key(1), nets["face"], motion, rows, device, config)
    lower = landmarks.GUIDES.index(14)

    @jax.jit
    @jax.vmap
    def opening(index):
        batch = batches.take(device, index)
        deltas, _ = nets["face"].apply(learnt, batch.guides, batch.conditions)
        return geometry.project_points(batch.guides + deltas.means, batch.camera)[lower, 1]

    train_frames = jnp.array(clip.split("train"))
    found = opening(train_frames)
    truth = device.guide_pixels[train_frames, lower, 1]
    assert np.corrcoef(found, truth)[0, 1] > 0.9 and np.std(found) > 0.5 * np.std(truth)
    assert (learnt["statistics"]["audio"]["mean"] == motion["statistics"]["audio"]["mean"]).all()


def test_masks_of_the_regions_leave_holes_in_the_face(folder):
    device = batches.device_clip(processed.load_clip(folder), "mel", ("AU45",))
    batch = batches.take(device, jnp.int32(3))
    classes = masks.region_labels(quickstart.get_config())
    face, ignored, _ = masks.region_masks("face", classes["face"], batch, 0, True)
    mouth, beside, fill = masks.region_masks("mouth", classes["mouth"], batch, 0, True)
    eyes, _, _ = masks.region_masks("eyes", classes["eyes"], batch, 0, True)
    assert not (face & (mouth | eyes)).any() and not ignored.any()
    np.testing.assert_array_equal(mouth, np.asarray(batch.labels) == 11)
    assert not (beside & mouth).any() and (mouth & ~fill).sum() == 0
    grown, _, _ = masks.region_masks("mouth", classes["mouth"], batch, 2, True)
    assert (grown & mouth).sum() == mouth.sum() and grown.sum() > mouth.sum()


def test_lips_and_eyes_may_weigh_more_where_layers_are_fused(folder):
    device = batches.device_clip(processed.load_clip(folder), "mel", ("AU45",))
    batch, row = batches.take(device, jnp.int32(3)), default.get_config().stages.fusion
    image = jnp.clip(batch.image + 0.1, 0.0, 1.0)

    def pull(detail):
        row.losses.detail = detail
        loss = lambda x: objective.fused_loss(row, None, None, x, batch, 0.0)[0]  # noqa: E731
        return jax.grad(loss)(image)

    more = np.any(pull(0.2) != pull(0.0), -1)
    inside = np.asarray(masks.detail_mask(batch))
    assert inside.any() and not inside.all()
    assert not more[~inside].any() and more[inside].mean() > 0.9


def test_unusable_folders_are_one_clear_line(tmp_path):
    config = small(tmp_path / "nothing")
    with pytest.raises(format.DatasetError, match="does not exist; make it with"):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_only_with_the_windows_it_began_with(tmp_path):
    config = small(tmp_path / "data")
    checkpoint.claim_workdir(tmp_path / "run", config, (16, 80))
    path = tmp_path / "run" / store.CONFIG_FILE
    assert json.loads(path.read_text())["data"]["audio_window"] == [16, 80]
    checkpoint.claim_workdir(tmp_path / "run", config, (16, 80))
    with pytest.raises(checkpoint.ConfigMismatch, match=r"\[16, 29\].* was trained on \[16, 80\]"):
        checkpoint.claim_workdir(tmp_path / "run", config, (16, 29))
    config.data.audio_extractor = "deepspeech"
    with pytest.raises(checkpoint.ConfigMismatch, match=r"differs in data\.audio_extractor"):
        checkpoint.claim_workdir(tmp_path / "run", config, (16, 80))
    older = json.loads(path.read_text())
    del older["data"]["audio_window"]
    path.write_text(json.dumps(older | {"data": older["data"] | {"audio_extractor": "deepspeech"}}))
    checkpoint.claim_workdir(tmp_path / "run", config, (16, 29))
    assert json.loads(path.read_text())["data"]["audio_window"] == [16, 29]


@pytest.mark.skipif(native.library_path("cuda") is None, reason="libfg3dgs_cuda is not built")
def test_the_step_lowers_for_cuda_without_a_gpu(folder, monkeypatch):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, "mel", config.data.expression)
    nets = draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    capacities = {"face": 12_345, "eyes": 12_346, "mouth": 12_347}
    run = step.make_train_step(
        config, config.stages.motion, 1, nets, objective.Frozen(), (SIZE, SIZE), capacities
    )
    monkeypatch.setenv("FG3DGS_BACKEND", "cuda")  # only now: what is above runs here
    groups = ("rasterizer", "hash_encoding")
    targets = [name for group in groups for name in native.TARGETS[group]]
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in targets]
    lower = jax.export.export(
        jax.jit(jax.vmap(run, axis_name=parallel.AXIS)), platforms=["cuda"], disabled_checks=checks
    )
    add_device = lambda tree: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)  # noqa: E731
    state, clip = add_device(step.init_state(regions, alive)), add_device(device)
    index = add_device({r: jnp.zeros(1, jnp.int32) for r in REGIONS})
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, clip, index))
    module = lower(*shapes).mlir_module()
    for name in targets:
        assert f"@{name}" in module, name
    for capacity in capacities.values():
        assert module.count(f"capacity = {capacity} : i64") == 2  # forward and backward
