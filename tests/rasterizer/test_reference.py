"""The definition against a float64 NumPy loop, finite differences and what physics says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fg3dgs_jax.rasterizer import reference, types
from fg3dgs_jax.types import Camera

from . import brute_force
from .scenes import draw, loss, make_scene, relative, rotation_about

CONSTANTS = Path(reference.__file__).parents[1] / "native/core/constants.h"


@pytest.mark.parametrize(
    ("n", "width", "height", "seed"), [(0, 5, 3, 0), (1, 9, 7, 1), (60, 33, 17, 2)]
)
def test_image_equals_brute_force(n, width, height, seed):
    scene = make_scene(n, width, height, seed)
    _, output = draw(reference, scene, width, height)
    image, alpha = brute_force.draw(scene, width, height)
    np.testing.assert_allclose(output.image, image, atol=3e-6)
    np.testing.assert_allclose(output.alpha, alpha, atol=3e-6)


def test_opaque_stack_stops_like_brute_force():
    scene = make_scene(40, 12, 12, 3, sigma_px=(4.0, 9.0))
    scene = scene._replace(opacities=jnp.full(40, 0.97))
    _, output = draw(reference, scene, 12, 12)
    image, alpha = brute_force.draw(scene, 12, 12)
    assert float(output.alpha.max()) > 0.999  # so the stop rule was reached
    np.testing.assert_allclose(output.image, image, atol=3e-6)
    np.testing.assert_allclose(output.alpha, alpha, atol=3e-6)


def test_splats_beside_the_camera_use_the_clamped_jacobian():
    scene = make_scene(30, 20, 20, 4, sigma_px=(6.0, 12.0))
    scene = scene._replace(means=scene.means.at[:, 0].multiply(2.2))
    _, output = draw(reference, scene, 20, 20)
    image, _ = brute_force.draw(scene, 20, 20)
    np.testing.assert_allclose(output.image, image, atol=3e-6)


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "colors", "background"])
def test_gradients_equal_central_differences_in_float64(field):
    """Along one random direction a field, in double precision, so only the gates could disturb."""
    with jax.enable_x64(True):
        scene = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), make_scene(6, 12, 10, 5))

        @jax.jit
        def value(x):
            return loss(draw(reference, scene._replace(**{field: x}), 12, 10)[1])

        start = getattr(scene, field)
        direction = jax.random.normal(jax.random.key(1), start.shape, jnp.float64)
        direction = direction * (jnp.abs(start).mean() / jnp.linalg.norm(direction))
        step = 1e-6
        numeric = (value(start + step * direction) - value(start - step * direction)) / (2 * step)
        analytic = jnp.vdot(jax.jit(jax.grad(value))(start), direction)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5)


def test_check_grads_of_projection():
    scene = make_scene(3, 16, 16, 6)

    @jax.jit
    def shape(means, quats, scales, world_to_camera):
        camera = scene.camera._replace(world_to_camera=world_to_camera)
        seen = reference.project(
            means, quats, scales, scene.opacities, camera, width=16, height=16, antialiased=True
        )
        return seen.means2d, seen.depths, seen.conics, seen.compensations

    with jax.enable_x64(True):
        arrays = (scene.means, scene.quats, scene.scales, scene.camera.world_to_camera)
        arrays = [jnp.asarray(x, jnp.float64) for x in arrays]
        check_grads(shape, arrays, order=1, modes=["rev"], eps=1e-6, rtol=1e-5, atol=1e-6)


def test_alpha_clamp_gates_every_gradient_but_the_color():
    """Opacity 1 on a pixel centre: alpha is 0.99 there and moving the Gaussian changes nothing."""
    camera = Camera(jnp.eye(4), *map(jnp.float32, (50.0, 50.0, 2.5, 2.5)))

    @jax.jit
    def pixel(opacity, scale, color):
        seen = reference.project(
            jnp.array([[0.0, 0.0, 1.0]]),
            jnp.array([[1.0, 0, 0, 0]]),
            scale[None],
            opacity[None],
            camera,
            width=5,
            height=5,
        )
        return reference.rasterize(seen, color[None], opacity[None], width=5, height=5).image[
            2, 2, 0
        ]

    arguments = (jnp.float32(1.0), jnp.full(3, 0.05), jnp.array([0.5]))
    assert float(pixel(*arguments)) == pytest.approx(0.99 * 0.5, abs=1e-7)
    opacity, scale, color = jax.grad(pixel, (0, 1, 2))(*arguments)
    assert float(opacity) == 0.0
    assert not np.any(scale)
    assert float(color[0]) == pytest.approx(0.99, abs=1e-7)


def test_moving_scene_and_camera_together_changes_nothing():
    scene = make_scene(80, 40, 32, 7)
    turn, shift = rotation_about([1.0, 2.0, 0.5], 0.9), np.array([0.3, -0.4, 0.2])
    half = 0.45
    axis = np.array([1.0, 2.0, 0.5]) / np.linalg.norm([1.0, 2.0, 0.5])
    w, xyz = np.cos(half), np.sin(half) * axis
    qw, qxyz = np.asarray(scene.quats[:, :1]), np.asarray(scene.quats[:, 1:])
    quats = np.concatenate(
        [w * qw - qxyz @ xyz[:, None], w * qxyz + qw * xyz + np.cross(xyz, qxyz)], 1
    )
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, shift
    pose = np.asarray(scene.camera.world_to_camera, np.float64) @ np.linalg.inv(motion)
    moved = scene._replace(
        means=jnp.float32(np.asarray(scene.means, np.float64) @ turn.T + shift),
        quats=jnp.float32(quats),
        camera=scene.camera._replace(world_to_camera=jnp.float32(pose)),
    )
    _, before = draw(reference, scene, 40, 32)
    _, after = draw(reference, moved, 40, 32)
    np.testing.assert_allclose(after.image, before.image, atol=5e-5)


def test_white_on_black_is_alpha():
    scene = make_scene(100, 32, 24, 8)
    white = scene._replace(colors=jnp.ones_like(scene.colors), background=jnp.zeros(3))
    _, output = draw(reference, white, 32, 24)
    for channel in range(3):
        np.testing.assert_allclose(output.image[..., channel], output.alpha, atol=2e-6)


def test_input_order_does_not_matter_unless_depths_are_equal():
    scene = make_scene(50, 24, 24, 9)
    order = jax.random.permutation(jax.random.key(0), 50)
    shuffled = scene._replace(
        **{
            name: getattr(scene, name)[order]
            for name in ("means", "quats", "scales", "opacities", "colors")
        }
    )
    same = draw(reference, shuffled, 24, 24)[1].image
    np.testing.assert_array_equal(same, draw(reference, scene, 24, 24)[1].image)

    twins = make_scene(2, 8, 8, 10, sigma_px=(3.0, 4.0))
    twins = twins._replace(
        means=jnp.zeros((2, 3)),
        opacities=jnp.full(2, 0.9),
        colors=jnp.eye(2, 3),
        quats=jnp.ones((2, 4)),
        background=jnp.zeros(3),
    )
    image = draw(reference, twins, 8, 8)[1].image
    assert float(image[..., 0].max()) > 2 * float(image[..., 1].max())  # index 0 is in front


def test_unsound_gaussians_are_culled_without_a_trace():
    scene = make_scene(20, 24, 24, 11)
    bad = scene._replace(
        means=scene.means.at[0, 0].set(jnp.nan).at[1, 2].set(jnp.inf).at[2].set(1e30),
        quats=scene.quats.at[3].set(0.0).at[4, 1].set(jnp.nan),
        scales=scene.scales.at[5, 0].set(jnp.inf).at[6, 1].set(jnp.nan).at[7].set(1e30),
        opacities=scene.opacities.at[8].set(jnp.nan).at[9].set(0.0),
        colors=scene.colors.at[10, 1].set(jnp.nan),
    )
    good = jax.tree.map(lambda x: x[11:], scene._replace(camera=None, background=None))
    good = good._replace(camera=scene.camera, background=scene.background)
    seen, output = draw(reference, bad, 24, 24)
    assert not np.any(seen.radii[:10])
    np.testing.assert_array_equal(output.image, draw(reference, good, 24, 24)[1].image)

    gradient = jax.jit(jax.grad(lambda s: loss(draw(reference, s, 24, 24)[1])))
    gradients, expected = gradient(bad), gradient(good)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        found = np.asarray(getattr(gradients, name))
        assert not np.any(found[:11])
        assert relative(found[11:], getattr(expected, name)) < 1e-5
    assert np.all(np.isfinite(gradients.camera.world_to_camera))


def test_behind_the_camera_leaves_the_background():
    scene = make_scene(10, 16, 16, 12)
    away = scene._replace(means=scene.means - jnp.array([0.0, 0.0, 5.0]))
    seen, output = draw(reference, away, 16, 16)
    assert not np.any(seen.radii)
    assert int(output.aux.n_isects) == 0
    np.testing.assert_array_equal(output.image, np.broadcast_to(scene.background, (16, 16, 3)))


def test_radii_cover_every_pixel_that_is_touched():
    scene = make_scene(1, 64, 64, 13, sigma_px=(3.0, 6.0))
    seen, output = draw(reference, scene, 64, 64)
    rows, columns = np.nonzero(np.asarray(output.alpha))
    reach = np.abs(np.stack([columns, rows], 1) + 0.5 - np.asarray(seen.means2d[0])).max(0)
    assert np.all(reach <= seen.radii[0])
    assert np.all(reach > np.asarray(seen.radii[0]) - 2)


def test_batches_equal_the_loop():
    scene = make_scene(30, 20, 18, 14, batch=(3,))
    shared = scene._replace(colors=scene.colors[:1], opacities=scene.opacities[0])
    _, output = draw(reference, shared, 20, 18)
    assert output.image.shape == (3, 18, 20, 3)
    for i in range(3):
        one = shared._replace(
            means=scene.means[i],
            quats=scene.quats[i],
            scales=scene.scales[i],
            colors=scene.colors[0],
            background=scene.background[i],
        )
        _, expected = draw(reference, one, 20, 18)
        np.testing.assert_allclose(output.image[i], expected.image, atol=1e-6)
        assert int(output.aux.n_isects[i]) == int(expected.aux.n_isects)


def test_antialiasing_keeps_the_brightness_of_a_needle():
    """The low-pass widens a thin splat; the compensated sum of alpha is that of the sharp one."""
    camera = Camera(jnp.eye(4), *map(jnp.float32, (100.0, 100.0, 16.0, 16.0)))
    scale = jnp.array([[0.05, 0.002, 0.002]])  # 5 x 0.2 px at 1 m
    seen = reference.project(
        jnp.array([[0.0, 0.0, 1.0]]),
        jnp.array([[1.0, 0, 0, 0]]),
        scale,
        jnp.array([0.5]),
        camera,
        width=32,
        height=32,
        antialiased=True,
    )
    sharp, blurred = 5.0 * 0.2, np.sqrt((25.0 + 0.3) * (0.04 + 0.3))
    assert float(seen.compensations[0]) == pytest.approx(sharp / blurred, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": jnp.zeros((5, 2))}, r"means has shape \(5, 2\); expected \[..., N, 3\]"),
        ({"quats": jnp.zeros((4, 4))}, "number of Gaussians"),
        ({"scales": jnp.zeros((5, 3), jnp.int32)}, "scales is int32"),
        ({"colors": jnp.zeros((5, 33))}, "33 channels; expected 1 to 32"),
        ({"background": jnp.zeros(2)}, "number of channels"),
        ({"camera": None}, "camera is a NoneType"),
        ({"means": jnp.zeros((2, 5, 3)), "quats": jnp.zeros((3, 5, 4))}, "batch dimensions"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, message):
    scene = make_scene(5, 8, 8)._replace(**change)
    with pytest.raises(ValueError, match=message) as caught:
        draw(reference, scene, 8, 8)
    assert "\n" not in str(caught.value)


def test_bad_size_is_refused():
    with pytest.raises(ValueError, match="width is 0"):
        draw(reference, make_scene(2, 8, 8), 0, 8)


def test_constants_equal_the_kernels():
    if not CONSTANTS.exists():
        pytest.skip("native/core/constants.h is not in this installation")
    text = CONSTANTS.read_text()
    pattern = r"(?:constexpr\s+\w+|#define)\s+(\w+)\s*=?\s*([-+0-9.eEf]+(?:\s*/\s*[0-9.]+f?)?)"
    found = {
        re.sub(r"[^a-z0-9]", "", re.sub(r"^(fg3dgs_|k(?=[A-Z]))", "", name).lower()): value
        for name, value in re.findall(pattern, text)
    }
    for name in (
        "ALPHA_MAX",
        "ALPHA_MIN",
        "TRANSMITTANCE_MIN",
        "FRUSTUM_MARGIN",
        "COMPENSATION_MIN",
        "TILE_SIZE",
        "MAX_CHANNELS",
    ):
        key = name.replace("_", "").lower()
        assert key in found, f"{name} is not in constants.h, which has {sorted(found)}"
        parts = [float(part.strip().rstrip("f")) for part in found[key].split("/")]
        value = parts[0] / parts[1] if len(parts) == 2 else parts[0]
        assert value == pytest.approx(
            getattr(types if name == "MAX_CHANNELS" else reference, name), rel=1e-7
        ), name
