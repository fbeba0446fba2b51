"""What happens between dispatches."""

import jax
import jax.numpy as jnp

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import processed
from fg3dgs_jax.rasterizer import CapacityMonitor
from fg3dgs_jax.training import batches, first_gaussians, hooks, parallel, step
from tests.painted import still


def test_samples_are_drawn_by_one_program(folder, tmp_path):
    """Whatever was learnt meanwhile; a region that grew compiles it once more."""
    config, clip = still(folder), processed.load_clip(folder)
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
