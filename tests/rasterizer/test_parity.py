"""The native backend against the reference: pictures to 1e-5, every gradient to 1e-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fg3dgs_jax.rasterizer import reference
from fg3dgs_jax.types import Camera

from .native import BACKEND, NATIVE, needs_native
from .scenes import draw, loss, make_scene, relative

pytestmark = needs_native

DIFFERENTIATED = ("means", "quats", "scales", "opacities", "colors", "background")


def gradients(backend, scene, width, height):
    """Gradients of the loss by name, camera pose and means2d probe included, and the output."""
    count = scene.means.shape[-2]
    probe = jnp.zeros((*jnp.broadcast_shapes(scene.means.shape[:-2]), count, 2))

    def value(scene, probe):
        output = draw(backend, scene, width, height, probe)[1]
        return loss(output), output

    (from_scene, from_probe), output = jax.jit(jax.grad(value, (0, 1), has_aux=True))(scene, probe)
    found = {name: getattr(from_scene, name) for name in DIFFERENTIATED}
    found["world_to_camera"] = from_scene.camera.world_to_camera
    found["means2d_probe"] = from_probe
    return found, output


def assert_parity(scene, width, height):
    expected, expected_output = gradients(reference, scene, width, height)
    found, output = gradients(NATIVE, scene, width, height)
    np.testing.assert_allclose(output.image, expected_output.image, atol=1e-5)
    np.testing.assert_allclose(output.alpha, expected_output.alpha, atol=1e-5)
    np.testing.assert_array_equal(output.aux.n_isects, expected_output.aux.n_isects)
    assert np.abs(output.aux.radii - expected_output.aux.radii).max(initial=0) <= 1  # ceil may flip
    for name, value in expected.items():
        assert np.all(np.isfinite(found[name])), name
        assert found[name].shape == value.shape, name
        if np.linalg.norm(value) > 1e-9:
            assert relative(found[name], value) <= 1e-4, name
        else:
            np.testing.assert_allclose(found[name], value, atol=1e-7, err_msg=name)
    return output


@pytest.mark.parametrize(
    ("n", "width", "height"),
    [(0, 33, 17), (1, 33, 17), (7, 450, 450), (600, 64, 64)],
)
def test_picture_and_gradients(n, width, height):
    assert_parity(make_scene(n, width, height, seed=n), width, height)


def test_check_grads_of_the_custom_call():
    """Gaussians so large that no pixel skips one: single precision needs wide differences."""
    scene = make_scene(4, 16, 12, seed=2, sigma_px=(12.0, 20.0))

    @jax.jit
    def value(means, quats, scales, opacities, colors, background, world_to_camera):
        camera = scene.camera._replace(world_to_camera=world_to_camera)
        scene_here = scene._replace(
            means=means,
            quats=quats,
            scales=scales,
            opacities=0.2 + 0.5 * opacities,
            colors=colors,
            background=background,
            camera=camera,
        )
        return 100.0 * loss(draw(NATIVE, scene_here, 16, 12)[1])

    arrays = (*(getattr(scene, name) for name in DIFFERENTIATED), scene.camera.world_to_camera)
    check_grads(value, arrays, order=1, modes=["rev"], eps=2e-3, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("channels", [1, 5, 8, 32])
def test_channel_counts(channels):
    assert_parity(make_scene(60, 40, 24, seed=channels, channels=channels), 40, 24)


def test_opaque_stack_reaches_clamp_and_stop():
    scene = make_scene(200, 32, 32, seed=3, sigma_px=(3.0, 9.0))
    output = assert_parity(scene._replace(opacities=jnp.full(200, 1.0)), 32, 32)
    assert float(output.alpha.max()) > 0.999


def test_splats_beside_the_camera():
    scene = make_scene(100, 32, 32, seed=4, sigma_px=(5.0, 12.0))
    assert_parity(scene._replace(means=scene.means.at[:, 0].multiply(2.2)), 32, 32)


def test_exactly_one_intersection_is_drawn():
    scene = make_scene(1, 48, 48, seed=5, sigma_px=(0.5, 0.6))
    camera = Camera(jnp.eye(4), *map(jnp.float32, (60.0, 60.0, 24.0, 24.0)))
    scene = scene._replace(means=jnp.array([[0.0, 0.0, 1.0]]), camera=camera)
    output = assert_parity(scene, 48, 48)
    assert int(output.aux.n_isects) == 1
    assert float(output.alpha.max()) > 0.01


def test_equal_depths_keep_input_order():
    scene = make_scene(80, 32, 32, seed=6, sigma_px=(2.0, 5.0))
    camera = scene.camera._replace(world_to_camera=jnp.eye(4).at[2, 3].set(1.0))
    assert_parity(scene._replace(means=scene.means.at[:, 2].set(0.0), camera=camera), 32, 32)


def test_opacity_one_on_a_pixel_centre_gates_the_gradient():
    camera = Camera(jnp.eye(4), *map(jnp.float32, (50.0, 50.0, 8.5, 8.5)))
    scene = make_scene(1, 17, 17, seed=7)._replace(
        means=jnp.array([[0.0, 0.0, 1.0]]), opacities=jnp.ones(1), camera=camera
    )
    output = assert_parity(scene, 17, 17)
    assert float(output.alpha[8, 8]) == pytest.approx(0.99, abs=1e-6)


def test_everything_behind_the_camera():
    scene = make_scene(30, 24, 24, seed=8)
    output = assert_parity(scene._replace(means=scene.means - jnp.array([0, 0, 5.0])), 24, 24)
    assert int(output.aux.n_isects) == 0


def test_unsound_gaussians_leave_no_trace():
    scene = make_scene(20, 24, 24, seed=9)
    scene = scene._replace(
        means=scene.means.at[0, 0].set(jnp.nan).at[1, 2].set(jnp.inf).at[2].set(1e30),
        quats=scene.quats.at[3].set(0.0).at[4, 1].set(jnp.nan),
        scales=scene.scales.at[5, 0].set(jnp.inf).at[6, 1].set(jnp.nan).at[7].set(1e30),
        opacities=scene.opacities.at[8].set(jnp.nan).at[9].set(0.0),
    )
    output = assert_parity(scene, 24, 24)
    assert not np.any(output.aux.radii[:10])


def test_antialiased_projection():
    scene = make_scene(100, 32, 32, seed=10, sigma_px=(0.1, 2.0))

    def shape(backend, means, quats, scales):
        seen = backend.project(
            means,
            quats,
            scales,
            scene.opacities,
            scene.camera,
            width=32,
            height=32,
            antialiased=True,
        )
        return jnp.sum(jnp.sin(jnp.arange(100.0)) * seen.compensations), seen

    def run(backend):
        value = jax.jit(jax.grad(lambda *arrays: shape(backend, *arrays), (0, 1, 2), has_aux=True))
        return value(scene.means, scene.quats, scene.scales)

    (found, seen), (expected, expected_seen) = run(NATIVE), run(reference)
    # A needle's compensation is a difference of nearly equal products: absolute, not relative.
    np.testing.assert_allclose(seen.compensations, expected_seen.compensations, atol=1e-4)
    for name, x, y in zip(("means", "quats", "scales"), found, expected, strict=True):
        assert relative(x, y) < 1e-3, name


def test_batch_with_shared_parts():
    scene = make_scene(50, 40, 24, seed=11, batch=(3,))
    poses = scene.camera.world_to_camera + jnp.linspace(0, 0.02, 3)[:, None, None] * jnp.eye(4, k=3)
    shared = scene._replace(
        colors=scene.colors[:1],
        opacities=scene.opacities[0],
        quats=scene.quats[1],
        camera=scene.camera._replace(world_to_camera=poses),
    )
    assert_parity(shared, 40, 24)


def test_vmap_equals_the_loop_bit_for_bit():
    scene = make_scene(50, 40, 24, seed=12, batch=(4,))
    axes = scene._replace(
        means=0, quats=None, scales=None, opacities=0, colors=0, background=None, camera=None
    )
    scene = scene._replace(
        quats=scene.quats[0], scales=scene.scales[0], background=scene.background[0]
    )

    def image(scene):
        return draw(NATIVE, scene, 40, 24)[1].image

    batched = jax.jit(jax.vmap(image, in_axes=(axes,)))(scene)
    for i in range(4):
        one = scene._replace(
            means=scene.means[i], opacities=scene.opacities[i], colors=scene.colors[i]
        )
        np.testing.assert_array_equal(batched[i], image(one))


def test_nested_vmap_over_geometry_and_appearance():
    scene = make_scene(30, 24, 20, seed=13)
    means = scene.means + jnp.array([0.0, 0.02])[:, None, None]
    colors = jnp.stack([scene.colors, 1 - scene.colors, scene.colors**2])

    def run(backend):
        def value(means, colors, scales):
            scene_here = scene._replace(means=means, colors=colors, scales=scales)
            return loss(draw(backend, scene_here, 24, 20)[1])

        grid = jax.vmap(jax.vmap(value, (None, 0, None)), (0, None, None))

        def total(*arrays):
            return jnp.sum(jnp.arange(1.0, 7).reshape(2, 3) * grid(*arrays))

        arrays = (means, colors, scene.scales)
        return grid(*arrays), jax.jit(jax.grad(total, (0, 1, 2)))(*arrays)

    (values, found), (expected_values, expected) = run(NATIVE), run(reference)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    for name, x, y in zip(("means", "colors", "scales"), found, expected, strict=True):
        assert relative(x, y) <= 1e-4, name


def test_render_draws_depth_and_sh_like_the_reference():
    from fg3dgs_jax import rasterizer

    scene = make_scene(60, 32, 24, seed=14)
    sh = 0.3 * jax.random.normal(jax.random.key(0), (60, 16, 3))

    def run(backend):
        def value(means, sh, world_to_camera):
            camera = scene.camera._replace(world_to_camera=world_to_camera)
            output = rasterizer.render(
                means,
                scene.quats,
                scene.scales,
                scene.opacities,
                sh,
                camera,
                width=32,
                height=24,
                sh_degree=3,
                depth=True,
                backend=backend,
            )
            return loss(output) + jnp.mean(output.depth**2), output

        arrays = (scene.means, sh, scene.camera.world_to_camera)
        return jax.jit(jax.grad(value, (0, 1, 2), has_aux=True))(*arrays)

    (found, output), (expected, expected_output) = run(BACKEND), run("reference")
    np.testing.assert_allclose(output.image, expected_output.image, atol=1e-5)
    np.testing.assert_allclose(output.depth, expected_output.depth, atol=1e-4)
    for name, x, y in zip(("means", "sh", "world_to_camera"), found, expected, strict=True):
        assert relative(x, y) <= 1e-4, name


def test_runs_inside_scan():
    scene = make_scene(20, 24, 24, seed=15)

    @jax.jit
    def steps(backgrounds):
        def step(total, background):
            output = draw(NATIVE, scene._replace(background=background), 24, 24)[1]
            return total + loss(output), output.image[0, 0]

        return jax.lax.scan(step, 0.0, backgrounds)

    total, corners = steps(jnp.linspace(0, 1, 5)[:, None] * jnp.ones(3))
    assert np.isfinite(total)
    assert np.all(np.diff(corners[:, 0]) > 0)
