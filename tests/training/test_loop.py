"""The loop on a small painted clip: a killed run goes on, lists and slots grow."""

import json
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from fg3dgs_jax import native
from fg3dgs_jax.avatar import draw, store, workdir
from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.config.defaults import Patches
from fg3dgs_jax.rasterizer import CapacityMonitor
from fg3dgs_jax.system import lock, stop
from fg3dgs_jax.training import (
    batches,
    checkpoint,
    first_gaussians,
    hooks,
    loop,
    objective,
    parallel,
    step,
)
from fg3dgs_jax.types import REGIONS
from tests.painted import SIZE, small, still


class Killed(Exception):
    pass


@pytest.fixture
def compiled_once(tmp_path):
    """Programs compiled within the test are kept on disk for its further runs."""
    settings = {
        "enable_compilation_cache": True,
        "compilation_cache_dir": str(tmp_path / "compiled"),
    }
    before = {name: getattr(jax.config, f"jax_{name}") for name in settings}
    for name, value in settings.items():
        jax.config.update(f"jax_{name}", value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(f"jax_{name}", value)
    compilation_cache.reset_cache()


@pytest.fixture
def compiling(monkeypatch):
    """A list that grows by (stage number, whether it was compiled then) with each dispatch."""
    events, found, make_dispatch = [], [], step.make_dispatch

    def listen(event, *_, **__):
        here = threading.current_thread() is threading.main_thread()
        if event == "/jax/core/compile/backend_compile_duration" and here:
            events.append(event)

    def watched(setup):
        dispatch = make_dispatch(setup)

        def call(*arguments):
            before = len(events)
            result = dispatch(*arguments)
            found.append((setup.number, len(events) > before))
            return result

        call.lower = dispatch.lower
        return call

    monkeypatch.setattr(step, "make_dispatch", watched)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_killed_run_goes_on_to_the_same_bits(
    folder, tmp_path, monkeypatch, compiled_once, compiling
):
    config = small(folder, static=5, motion=10, fusion=5)
    loop.fit(config, tmp_path / "whole")
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
            loop.fit(config, tmp_path / "killed")
        assert calls == [saved]
        calls.clear()
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    loop.fit(config, tmp_path / "killed")

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
    with pytest.raises(workdir.ConfigMismatch, match=r"differs in stages\.motion\.steps"):
        loop.fit(config, tmp_path / "whole")


def test_a_list_that_fills_up_grows_between_dispatches_and_compiles_once(
    folder, tmp_path, monkeypatch, compiling
):
    """As on a GPU, whose lists the monitor watches; the CPU's program has the same static number
    in it, and ignores it."""
    monitor = CapacityMonitor({"face": 16, "eyes": 4096, "mouth": 4096})
    monkeypatch.setattr(hooks, "monitor_lists", lambda *_: monitor)
    saved = []

    def stop_after_three(_, done, *rest):
        saved.append((done, monitor.capacities))
        if done == 15:
            raise Killed

    monkeypatch.setattr(checkpoint.Checkpoints, "save", stop_after_three)
    with pytest.raises(Killed):
        loop.fit(small(folder, static=15), tmp_path / "run")
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


def test_unusable_folders_are_one_clear_line(tmp_path):
    config = small(tmp_path / "nothing")
    with pytest.raises(ValueError, match="nothing does not exist; make it with: python scripts/ma"):
        loop.fit(config, tmp_path / "run")
    config.data.made_by = None
    with pytest.raises(format.DatasetError, match="does not exist; make it with"):
        loop.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_signal_ends_a_run_with_a_checkpoint(folder, tmp_path, monkeypatch, capsys):
    """After the dispatch, though no checkpoint is due; and nobody holds the workdir any more."""
    config = still(folder, static=15)
    config.log.checkpoint_every = 15

    def killing(bar):
        return lambda run, dispatch: os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(hooks, "show_progress", killing)
    with pytest.raises(stop.Stopped, match=r"stopped by SIGTERM at step 5, with a checkpoint"):
        loop.fit(config, tmp_path / "run")
    printed = capsys.readouterr()
    assert "SIGTERM: stopping after this dispatch" in printed.err
    assert "memory: about 3.0 GB at the peak" in printed.out
    assert checkpoint.Checkpoints(tmp_path / "run").latest().step == 5
    assert (tmp_path / "run" / "avatar.npz").exists() and not list((tmp_path / "run").glob(".*"))
    # The clip may move, but it has to be the same.
    config.data.path = str(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"moved, on which .*--config\.data\.path=FOLDER"):
        loop.fit(config, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "moved")
    with np.load(folder / "camera.npz") as fields:
        np.savez(tmp_path / "moved" / "camera.npz", **dict(fields), another=1)
    clip = loop.open_data(config, tmp_path / "run")
    assert loop.prepare(config, tmp_path / "run", clip).run.done == 5
    other = {"world_to_camera": clip.world_to_camera + 0.01, "valid": clip.valid}
    np.savez(tmp_path / "moved" / "camera.npz", **other)
    with pytest.raises(ValueError, match="moved holds another clip than"):
        loop.fit(config, tmp_path / "run")
    with lock.held(tmp_path / "run", "train"), pytest.raises(lock.Locked, match="being written by"):
        loop.fit(config, tmp_path / "run")


def test_a_run_goes_on_only_with_the_windows_it_began_with(tmp_path, capsys):
    config = small(tmp_path / "data")

    def claim(window, value=0.0):
        features = np.full((7, *window), value)
        workdir.claim(tmp_path / "run", workdir.resolved(config, features))

    claim((16, 80))
    path = tmp_path / "run" / store.CONFIG_FILE
    assert json.loads(path.read_text())["data"]["audio_window"] == [16, 80]
    claim((16, 80))
    assert not capsys.readouterr().err
    claim((16, 80), 0.5)
    assert "'mel' features of" in (err := capsys.readouterr().err) and "made anew since" in err
    claim((16, 80), 0.5)
    assert not capsys.readouterr().err
    with pytest.raises(workdir.ConfigMismatch, match=r"\[16, 29\].* was trained on \[16, 80\]"):
        claim((16, 29))
    config.data.audio_extractor = "deepspeech"
    with pytest.raises(workdir.ConfigMismatch, match=r"differs in data\.audio_extractor"):
        claim((16, 80))
    older = json.loads(path.read_text())
    del older["gaussians"]
    path.write_text(json.dumps(older))
    with pytest.raises(workdir.ConfigMismatch, match=r"was trained by version 0\.1"):
        claim((16, 29))


@pytest.mark.skipif(native.library_path("cuda") is None, reason="libfg3dgs_cuda is not built")
def test_the_step_lowers_for_cuda_without_a_gpu(folder, monkeypatch):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, config.data)
    nets = draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    capacities = {"face": 12_345, "eyes": 12_346, "mouth": 12_347}
    stage, size = config.stages.motion, (SIZE, SIZE)
    run = step.make_train_step(
        objective.Setup(config, stage, 1, nets, objective.Networks(), size, capacities)
    )
    monkeypatch.setenv("FG3DGS_BACKEND", "cuda")  # only now: what is above runs here
    targets = [name for group in native.TARGETS.values() for name in group]
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in targets]
    lower = jax.export.export(
        jax.jit(jax.vmap(run, axis_name=parallel.AXIS)), platforms=["cuda"], disabled_checks=checks
    )

    def add_device(tree):
        return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)

    state, clip = add_device(step.init_state(regions, alive)), add_device(device)
    inputs = add_device(step.Inputs({r: jnp.zeros(1, jnp.int32) for r in REGIONS}))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, clip, inputs))
    module = lower(*shapes).mlir_module()
    for name in targets:
        assert f"@{name}" in module, name
    for capacity in capacities.values():
        assert module.count(f"capacity = {capacity} : i64") == 2  # forward and backward


def test_a_gpus_next_programs_are_compiled_while_it_works(folder, tmp_path, monkeypatch, compiling):
    """Each stage's first by the one before; what a dispatch that LPIPS cuts needs, by its own."""
    config = still(folder, fusion=10)
    config.regions, config.stages.fusion.losses.lpips = ("face",), 0.5
    config.stages.fusion.patches = Patches(0.2, 16, 2)
    monkeypatch.setattr(loop, "load_perceptual", lambda _: lambda x, y: ((x - y) ** 2).mean((1, 2)))
    monkeypatch.setattr(native, "on_gpu", lambda: True)
    loop.fit(config, tmp_path / "run")
    assert compiling == [(0, True), (1, False), (2, False), (2, False), (2, False)]
