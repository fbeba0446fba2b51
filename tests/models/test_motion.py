import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import Model, Motion
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.models import motion as motion_lib
from fg3dgs_jax.rasterizer.sh import SH_BAND_0
from fg3dgs_jax.types import REGIONS, Conditions, GaussianDeltas

EXPECTED_PARAMS = {"face": 73_741, "eyes": 195_496, "mouth": 227_912}


def conditions(frames=None, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    lead = () if frames is None else (frames,)
    return Conditions(
        jax.random.normal(keys[0], (*lead, 8, 16, 29)), jax.random.uniform(keys[1], (*lead, 6))
    )


@functools.cache
def awake(region, motion="gated", count=50):
    """A net with tables so large that places differ, and means inside the bound."""
    config = Model()
    getattr(config, region).motion = Motion(motion)
    net = motion_lib.make_motion_net(region, config)
    means = jax.random.uniform(jax.random.key(3), (count, 3), minval=-0.1, maxval=0.1)
    rng = np.random.default_rng(0)  # compiling an initializer for each parameter would take seconds
    shapes = jax.eval_shape(net.init, jax.random.key(0), means, conditions())
    variables = jax.tree.map(
        lambda p: jnp.float32(rng.uniform(-1, 1, p.shape) * max(p.shape[-2:-1], default=9) ** -0.5),
        shapes,
    )
    return net, variables, means


@pytest.mark.parametrize("region", REGIONS)
def test_parameter_counts_and_almost_no_motion_at_the_start(region):
    net = motion_lib.make_motion_net(region, Model())
    means = jnp.zeros((4, 3))
    variables = jax.jit(net.init)(jax.random.key(0), means, conditions())
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == EXPECTED_PARAMS[region]
    deltas, _ = jax.jit(net.apply)(variables, means, conditions())
    assert 0 < float(jnp.abs(deltas.means).max()) < 5e-4


@pytest.mark.parametrize(
    "region, motion, audio, expression",
    [
        ("face", "gated", 1, 1),
        ("face", "concat", 1, 1),
        ("mouth", "gated", 1, 0),
        ("mouth", "concat", 1, 0),
        ("eyes", "gated", 0, 1),
        ("eyes", "concat", 0, 1),
    ],
)
def test_each_region_listens_to_its_conditions_only(region, motion, audio, expression):
    net, variables, means = awake(region, motion)
    base = conditions()

    apply = jax.jit(net.apply)
    deltas, gates = apply(variables, means, base)

    def moved(c):
        return bool(jnp.any(apply(variables, means, c)[0].means != deltas.means))

    assert moved(base._replace(audio=base.audio + 1.0)) == bool(audio)
    assert moved(base._replace(expression=base.expression + 1.0)) == bool(expression)
    assert (deltas.quats is not None) == (deltas.raw_scales is not None) == (region == "face")
    assert gates.audio.shape == gates.expression.shape == (50,)
    assert bool(jnp.any(gates.audio)) == bool(audio) and bool(jnp.any(gates.expression)) == bool(
        expression
    )
    assert float(jnp.std(deltas.means, 0).max()) > 1e-6


def all_equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from all_equations(inner)


@pytest.mark.parametrize("region", REGIONS)
def test_frames_share_one_encoding(region):
    net, variables, means = awake(region)
    batch = conditions(frames=3)
    run = jax.vmap(lambda c: net.apply(variables, means, c))
    sizes = [
        e.outvars[0].aval.size
        for e in all_equations(jax.make_jaxpr(run)(batch).jaxpr)
        if e.primitive.name in ("gather", "ffi_call")  # the plain encoding or the compiled one
    ]
    assert max(sizes) == 50 * 36  # one look-up, not one a frame
    together = jax.jit(run)(batch)[0].means
    alone = jax.jit(net.apply)(variables, means, jax.tree.map(lambda x: x[1], batch))[0].means
    np.testing.assert_allclose(together[1], alone, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("region", REGIONS)
def test_every_parameter_and_the_means_get_gradients(region):
    net, variables, means = awake(region)

    def loss(variables, means):
        return sum(
            jnp.sum(x**2) for x in jax.tree.leaves(net.apply(variables, means, conditions()))
        )

    by_variables, by_means = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, means)
    for path, leaf in jax.tree_util.tree_leaves_with_path(by_variables):
        assert bool(jnp.all(jnp.isfinite(leaf))), path
        assert float(jnp.abs(leaf).max()) > 0, path
    assert float(jnp.abs(by_means).max()) > 0


def test_every_gaussian_of_the_face_can_learn_to_blink_from_the_start():
    """A gate that the ReLU shuts at the start has no gradient: AU45's was, almost everywhere."""
    means = jax.random.uniform(jax.random.key(3), (64, 3), minval=-0.1, maxval=0.1)
    listening = []
    for offset in (Model().face.expression_gate_offset, 0.0):
        config = Model()
        config.face.expression_gate_offset = offset
        net = motion_lib.make_motion_net("face", config)
        variables = jax.jit(net.init)(jax.random.key(0), means, conditions())

        @jax.jit
        def moved(blink, net=net, variables=variables):
            at = conditions()
            at = at._replace(expression=at.expression.at[-1].set(blink))
            return net.apply(variables, means, at)[0].means

        listening.append(float(jnp.any(moved(0.9) != moved(0.3), axis=-1).mean()))
    assert listening[0] == 1.0 and listening[1] < 0.7


def test_a_mouth_that_follows_the_lips_listens_to_the_face():
    config = Model()
    config.mouth.follows_lips = True
    face, mouth = (
        motion_lib.make_motion_net("face", config),
        motion_lib.make_motion_net("mouth", config),
    )
    means = jax.random.uniform(jax.random.key(3), (20, 3), minval=-0.1, maxval=0.1)
    points = jax.random.uniform(
        jax.random.key(4), (len(motion_lib.LIPS), 3), minval=-0.1, maxval=0.1
    )
    by_face = jax.jit(face.init)(jax.random.key(0), means, conditions())
    by_mouth = jax.jit(mouth.init)(jax.random.key(1), means, conditions())
    plain, _ = jax.jit(mouth.apply)(by_mouth, means, conditions())
    by_mouth = {**by_mouth, "statistics": {**by_mouth["statistics"], "lips": points}}

    @jax.jit
    def moved(by_face):
        told = motion_lib.lip_motion(face, by_face, by_mouth, conditions())
        return told.lips, mouth.apply(by_mouth, means, told)[0].means

    lips, followed = moved(by_face)
    deltas, _ = face.apply(by_face, points, conditions())
    np.testing.assert_allclose(lips, 100 * deltas.means.reshape(-1), rtol=1e-5)  # centimetres
    wider = jax.tree.map(lambda x: 3 * x, by_face)
    assert np.any(followed != plain.means) and np.any(moved(wider)[1] != followed)
    into_face = jax.grad(lambda v: jnp.sum(moved(v)[1]))(by_face)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(into_face))
    deaf = jax.eval_shape(
        motion_lib.make_motion_net("mouth", Model()).init, jax.random.key(1), means, conditions()
    )
    assert motion_lib.lip_motion(face, by_face, deaf, conditions()).lips is None


def test_make_motion_net_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="region"):
        motion_lib.make_motion_net("hair", Model())
    with pytest.raises(ValueError, match="'none' is not a valid Motion"):
        Model.from_dict({"mouth": {"motion": "none"}})


def test_activate_adds_before_the_activation():
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (5, 3))
    gaussians, alive = gaussians_lib.init_gaussians_from_points(points, 0 * points + 0.5, 8)
    ones = jnp.ones((8, 1))
    deltas = GaussianDeltas(
        0.01 * ones * jnp.ones(3), 0.1 * ones * jnp.ones(4), 0.5 * ones * jnp.ones(3)
    )
    drawn = gaussians_lib.activate(gaussians, deltas, alive)
    np.testing.assert_allclose(drawn.means, gaussians.means + 0.01, rtol=1e-6)
    np.testing.assert_allclose(drawn.quats, gaussians.quats + 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        drawn.scales, np.log1p(np.exp(gaussians.raw_scales + 0.5)), rtol=1e-5
    )
    np.testing.assert_allclose(drawn.opacities, [0.1] * 5 + [0] * 3, rtol=1e-5)
    still = gaussians_lib.activate(gaussians)
    np.testing.assert_allclose(still.opacities, 0.1, rtol=1e-5)
    only_means = gaussians_lib.activate(
        gaussians, dataclasses.replace(deltas, quats=None, raw_scales=None)
    )
    np.testing.assert_array_equal(only_means.scales, still.scales)


def test_initial_scale_is_ln_of_one_plus_neighbour_distance():
    grid = 0.008 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
    gaussians, alive = gaussians_lib.init_gaussians_from_points(
        grid, np.full((27, 3), [0.2, 0.5, 1.0]), 32, sh_degree=3
    )
    drawn = gaussians_lib.activate(gaussians, alive=alive)
    np.testing.assert_allclose(drawn.scales[:27], 0.007968, rtol=1e-4)
    assert gaussians.sh.shape == (32, 16, 3)
    np.testing.assert_allclose(gaussians.sh[0, 0] * SH_BAND_0 + 0.5, [0.2, 0.5, 1.0], rtol=1e-5)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(gaussians))


@pytest.mark.parametrize("num, match", [(9, "slots"), (0, "slots")])
def test_init_refuses_impossible_counts(num, match):
    with pytest.raises(ValueError, match=match):
        gaussians_lib.init_gaussians_from_points(np.zeros((num, 3)), np.zeros((num, 3)), 8)


def test_init_takes_a_lone_point_and_coinciding_points_and_refuses_a_bad_degree():
    for count in (1, 2, 5):
        gaussians, _ = gaussians_lib.init_gaussians_from_points(
            np.zeros((count, 3)), np.zeros((count, 3)), 8
        )
        assert bool(jnp.all(jnp.isfinite(gaussians.raw_scales)))
    with pytest.raises(ValueError, match="sh_degree"):
        gaussians_lib.init_gaussians_from_points(np.zeros((4, 3)), np.zeros((4, 3)), 8, 4)
