"""What happens between dispatches."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.rasterizer import CapacityMonitor, default_capacity
from fg3dgs_jax.training import batches, first_gaussians, hooks, parallel, step
from fg3dgs_jax.types import REGIONS, Gaussians
from tests.painted import still


def test_samples_are_drawn_by_one_program(folder, tmp_path):
    """Whatever was learnt meanwhile; a region that grew compiles it once more."""
    config, clip = still(folder), processed.load_clip(folder)
    config.regions = ("face",)
    device, nets = batches.device_clip(clip, config.data), draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    state = parallel.replicate(step.init_state(regions, alive))
    run = hooks.Run(config, tmp_path, clip, device, state, CapacityMonitor({}))
    write, compiled = hooks.draw_samples(config), []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def pictures():
        return [p.read_bytes() for p in sorted((tmp_path / "samples").iterdir())]

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for run.done in (5, 10):
            write(run, hooks.Dispatch(5, 1.0, {}, {}, run.done, last=True))
            if run.done == 5:
                assert compiled and len(pictures()) == 1
                faces = run.state.regions["face"].gaussians
                moved = faces.replace(sh=jnp.zeros_like(faces.sh))
                face = run.state.regions["face"]._replace(gaussians=moved)
                run.state = run.state.replace(regions=run.state.regions | {"face": face})
                compiled.clear()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    first, second = pictures()
    assert first != second


def test_lists_are_watched_where_they_have_an_end_and_need_not_follow_the_slots(monkeypatch):
    config = Config()
    config.gaussians.eyes.max_capacity = None
    alive = {r: np.ones((1, 64), bool) for r in REGIONS}
    clip = SimpleNamespace(width=512, height=512)
    assert hooks.monitor_lists(config, alive, clip).capacities == {}
    monkeypatch.setattr(native, "on_gpu", lambda: True)
    lists = hooks.monitor_lists(config, alive, clip).capacities
    assert lists == {"face": 524_288, "eyes": default_capacity(64, 512, 512), "mouth": 524_288}


def test_what_waits_gets_slots_and_everything_else_stays(monkeypatch):
    monkeypatch.setattr(native, "on_gpu", lambda: True)
    config = Config(regions=("face",))
    config.gaussians.face.max_capacity = 16
    fields = {"means": 3, "quats": 4, "raw_scales": 3}
    arrays = {name: jnp.ones((4, width)) for name, width in fields.items()}
    gaussians = Gaussians(**arrays, logit_opacities=jnp.ones(4), sh=jnp.ones((4, 9, 3)))
    regions = {"face": draw.Region(gaussians, {})}
    state = step.init_state(regions, {"face": jnp.ones(4, bool)})
    state = jax.tree.map(lambda x: x[None], state)
    assert hooks.grow_where_needed(state, {"face/waiting": 0.0}, config) is state
    grown = hooks.grow_where_needed(state, {"face/waiting": 1.0}, config)
    assert grown.alive["face"].shape == (1, 16) and grown.alive["face"].sum() == 4
    shapes = {x.shape[1] for x in jax.tree.leaves(grown.regions["face"].gaussians)}
    assert shapes == {16} and grown.stats["face"].count.shape == (1, 16)
    assert hooks.grow_where_needed(grown, {"face/waiting": 16.0}, config) is grown
