"""The CUDA backend: on a GPU, on the host's stand-in for one, and what needs neither.

Tests marked `gpu` run where JAX has a GPU, and on any machine through
`test_the_kernels_run_on_the_host`, which compiles the kernels for the host (tests/host_cuda).
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax import native, rasterizer
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Encoding
from fg3dgs_jax.models import hash_encoding, hash_encoding_ffi
from fg3dgs_jax.rasterizer import blending, reference
from fg3dgs_jax.training import rates
from fg3dgs_jax.training.ffi import adam as adam_ffi
from fg3dgs_jax.types import REGIONS, Gaussians
from tests import host_cuda

from .scenes import loss, make_scene, relative

ROOT = Path(__file__).parents[2]
ON_HOST = native.PLATFORMS["cuda"] == "cpu"  # the plugin of tests/host_cuda is active
WIDTH, HEIGHT = 40, 24
TARGETS = [name for group in ("rasterizer", "hash_encoding") for name in native.TARGETS[group]]

needs_library = pytest.mark.skipif(
    native.library_path("cuda") is None, reason="libfg3dgs_cuda is not built (it needs nvcc)"
)


def gpu(test):
    """Marks a test of the kernels themselves."""
    there = ON_HOST or jax.default_backend() == "gpu"
    reason = "no GPU here: JAX's default backend is " + jax.default_backend()
    return pytest.mark.gpu(pytest.mark.skipif(not there, reason=reason)(needs_library(test)))


def render(scene, backend="cuda", **options):
    return rasterizer.render(
        scene.means,
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.colors,
        scene.camera,
        width=WIDTH,
        height=HEIGHT,
        background=scene.background,
        backend=backend,
        **options,
    )


def draw_with_gradients(scene, **options):
    """Output and gradients with respect to everything in the scene."""

    def value(scene):
        output = render(scene, **options)
        return loss(output), output

    gradients, output = jax.jit(jax.grad(value, has_aux=True, allow_int=True))(scene)
    return output, gradients


def assert_same_bits(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def digest():
    """Of a picture, its gradients and those of the encoding; also called in other processes."""
    results = draw_with_gradients(make_scene(120, WIDTH, HEIGHT, seed=1, batch=(2,)))
    levels = hash_encoding.make_levels(Encoding(4, 8, levels=2))
    rng = np.random.default_rng(0)
    tables = jnp.float32(rng.normal(size=levels.num_params))
    coords = jnp.float32(rng.uniform(-0.15, 0.15, (100, 3)))

    def value(t, c):
        return jnp.sum(jnp.sin(hash_encoding_ffi.encode(t, c, levels=levels)))

    results = (results, jax.jit(jax.grad(value, (0, 1)))(tables, coords))
    data = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(results))
    return hashlib.sha256(data).hexdigest()


# The kernels.


@gpu
def test_any_sufficient_capacity_gives_the_same_bits():
    scene = make_scene(50, WIDTH, HEIGHT, seed=2)
    expected = draw_with_gradients(scene)
    need = int(expected[0].aux.n_isects)
    for capacity in (need, need + 1, 1 << 14):
        found = draw_with_gradients(scene, isect_capacity=capacity)
        assert_same_bits(found, expected)
        assert not found[0].aux.overflow


@gpu
def test_overflow_drops_the_farthest_and_says_so():
    """With room for the nearest k Gaussians only, the picture and gradients are those of these."""
    scene = make_scene(40, WIDTH, HEIGHT, seed=3)
    near = np.argsort(_depths(scene))[:25]
    kept = scene._replace(
        **{name: getattr(scene, name)[near] for name in ("means", "quats", "scales", "opacities")},
        colors=scene.colors[near],
    )
    expected, expected_gradients = draw_with_gradients(kept)
    capacity = int(expected.aux.n_isects)
    found, gradients = draw_with_gradients(scene, isect_capacity=capacity)
    assert found.aux.overflow
    assert int(found.aux.n_isects) == int(render(scene).aux.n_isects) > capacity
    np.testing.assert_array_equal(found.image, expected.image)
    for name in ("means", "colors", "opacities"):
        gradient = np.asarray(getattr(gradients, name))
        np.testing.assert_allclose(gradient[near], getattr(expected_gradients, name), atol=1e-7)
        assert not np.any(np.delete(gradient, near, 0))


def _depths(scene):
    pose = np.asarray(scene.camera.world_to_camera)
    return np.asarray(scene.means) @ pose[2, :3] + pose[2, 3]


@gpu
def test_what_the_monitor_suggests_draws_everything():
    scene = make_scene(40, WIDTH, HEIGHT, seed=3)
    monitor = rasterizer.CapacityMonitor({"picture": 8})
    short = render(scene, isect_capacity=monitor.capacities["picture"])
    assert short.aux.overflow and monitor.update({"picture": int(short.aux.n_isects)})
    whole = render(scene, isect_capacity=monitor.capacities["picture"])
    assert not whole.aux.overflow and not monitor.update({"picture": int(whole.aux.n_isects)})
    np.testing.assert_array_equal(whole.image, render(scene).image)


@gpu
def test_capacity_of_one_pair_is_survived():
    output, gradients = draw_with_gradients(make_scene(30, WIDTH, HEIGHT, 4), isect_capacity=1)
    assert output.aux.overflow
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((output.image, gradients)))


@gpu
def test_a_batch_equals_the_loop_and_shares_its_capacity():
    scene = make_scene(40, WIDTH, HEIGHT, seed=5, batch=(3,))
    need = [int(n) for n in render(scene).aux.n_isects]
    options = {"isect_capacity": -(-sum(need) // 3)}  # less than the neediest image needs
    output, gradients = draw_with_gradients(scene, **options)
    assert not np.any(output.aux.overflow)
    for i in range(3):
        fields = {name: value[i] for name, value in scene._asdict().items() if name != "camera"}
        one, one_gradients = draw_with_gradients(scene._replace(**fields))
        np.testing.assert_array_equal(output.image[i], one.image)
        assert int(output.aux.n_isects[i]) == need[i]
        # The loss of the batch is a mean over its images.
        found = np.asarray(gradients.means[i])
        assert relative(3 * found, one_gradients.means) < 1e-5


@gpu
def test_training_steps_inside_scan_equal_the_loop():
    """On a GPU, XLA makes the body of the scan a command buffer (a CUDA graph)."""
    scene = make_scene(30, WIDTH, HEIGHT, seed=6)
    step = jax.grad(lambda means: loss(render(scene._replace(means=means))))

    def body(means, _):
        return means - 1e-3 * step(means), None

    scanned = jax.jit(lambda means: jax.lax.scan(body, means, None, length=4)[0])(scene.means)
    looped = scene.means
    for _ in range(4):
        looped = jax.jit(body)(looped, None)[0]
    np.testing.assert_allclose(scanned, looped, atol=1e-6)
    assert np.abs(scanned - scene.means).max() > 1e-6


@gpu
def test_a_gradient_mapped_without_its_forward_is_refused():
    scene = make_scene(10, WIDTH, HEIGHT, seed=7)
    _, pullback = jax.vjp(lambda means: render(scene._replace(means=means)).image, scene.means)
    with pytest.raises(Exception, match="cannot be mapped without its forward"):
        jax.block_until_ready(jax.vmap(pullback)(jnp.ones((2, HEIGHT, WIDTH, 3))))


@gpu
def test_encoding_equals_its_definition():
    levels = hash_encoding.make_levels(Encoding(8, 16, levels=3))
    rng = np.random.default_rng(0)
    tables = jnp.float32(rng.normal(size=levels.num_params))
    coords = jnp.float32(rng.uniform(-0.16, 0.16, (300, 3))).at[0].set(jnp.nan)

    def run(encode):

        def value(t, c):
            return jnp.sum(jnp.sin(3.0 * encode(t, c, levels=levels)))

        gradients = jax.jit(jax.grad(value, (0, 1)))(tables, coords[1:])
        return encode(tables, coords, levels=levels), *gradients

    names = ("features", "tables", "coords")
    for name, x, y in zip(names, run(_encode_cuda), run(hash_encoding.encode), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max(), err_msg=name)


def _encode_cuda(tables, coords, *, levels):
    return hash_encoding_ffi._encode(("cuda", levels), tables, coords)


@gpu
@pytest.mark.parametrize("name", ["motion", "fusion"])
def test_adam_of_all_parameters_at_once_equals_one_by_one(monkeypatch, name):
    rng = np.random.default_rng(0)

    def drawn(*shape, scale=1.0):
        return jnp.float32(scale * rng.normal(size=shape))

    def region():
        n = 1100  # more than a block's piece
        gaussians = Gaussians(drawn(n, 3), drawn(n, 4), drawn(n, 3), drawn(n), drawn(n, 9, 3))
        nets = {f"layer_{i}": {"kernel": drawn(5, i + 1), "bias": drawn(i + 1)} for i in range(6)}
        return draw.Region(gaussians, {"params": nets, "statistics": {"mean": drawn(7)}})

    regions = {r: region() for r in REGIONS}
    table = rates.table(regions, getattr(Config().stages, name).rates)

    def two_steps(state, regions):
        for i in range(2):  # gradients of all sizes
            grads = jax.tree.map(lambda x, i=i: jnp.sin(9 * x + i) * 10.0 ** (-6 + 3 * x), regions)
            regions, state = rates.update(grads, state, regions, table, 0.3 + 0.1 * i)
        return regions, state

    found = jax.jit(lambda *now: two_steps(*now))(rates.init(regions), regions)
    monkeypatch.setattr(adam_ffi, "is_available", lambda: False)
    expected = jax.jit(lambda *now: two_steps(*now))(rates.init(regions), regions)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7)


@gpu
def test_run_to_run_the_same_bits():
    assert digest() == digest()


# The same kernels, compiled for the host.


@pytest.fixture(scope="module")
def host_library(tmp_path_factory):
    if ON_HOST:
        pytest.skip("this is the run on the host")
    if reason := host_cuda.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("host_cuda")
    host_cuda.build(folder)
    return folder


def run_on_host(folder, *arguments, **environment):
    environment = {
        **os.environ,
        "FG3DGS_NATIVE_DIR": str(folder),
        "FG3DGS_BACKEND": "cuda",
        "JAX_PLATFORMS": "cpu",
        **environment,
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_kernels_run_on_the_host(host_library):
    """Parity with the reference, the tests above and SSIM's, with fibers for threads."""
    parity = (
        "picture_and_gradients and not 450 or channel_counts and (1 or 32) or opaque or unsound "
        "or exactly_one or equal_depths or shared_parts or bit_for_bit"
    )
    here = Path(__file__).parent
    ssim = "test_ssim_ffi.py and (many or boxes or equal_pictures or nan or batches)"
    chosen = f"test_cuda.py and gpu or test_parity.py and ({parity}) or {ssim}"
    files = ("test_parity.py", "test_cuda.py", "../training/test_ssim_ffi.py")
    files = tuple(str(here / name) for name in files)
    options = ("-q", "-p", "no:cacheprovider", "-p", "tests.host_cuda.plugin", "-k", chosen)
    report = run_on_host(host_library, "-m", "pytest", *options, *files)
    assert "passed" in report and "skipped" not in report, report


def test_the_schedule_of_threads_does_not_change_a_bit(host_library):
    """A missing barrier would: the fibers of a block go on in another order with each seed."""
    program = (
        "import tests.host_cuda.plugin; from tests.rasterizer.test_cuda import digest; "
        "print(digest())"
    )
    digests = {run_on_host(host_library, "-c", program).split()[-1]}
    for seed in ("1", "2"):
        output = run_on_host(host_library, "-c", program, FG_HOST_CUDA_ORDER=seed)
        digests.add(output.split()[-1])
    assert len(digests) == 1


@pytest.mark.skipif(bool(host_cuda.missing()), reason=host_cuda.missing())
def test_index_computations_shared_with_the_host(tmp_path):
    program = tmp_path / "index_test"
    source = Path(host_cuda.__file__).parent / "index_test.cc"
    include = host_cuda.NATIVE
    command = [host_cuda.COMPILER, "-std=c++17", "-O1", f"-I{include}", source, "-o", program]
    subprocess.run([str(part) for part in command], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The library and the programs that call it, without a GPU.


def test_default_capacity_leaves_room_and_never_exceeds_what_can_be_needed():
    assert blending.default_capacity(50_000, 512, 512) == 409_600
    assert blending.default_capacity(0, 64, 64) == 1
    assert blending.default_capacity(7, 450, 450) == 7 * 29 * 29
    assert blending.default_capacity(100_000, 17, 16) == 2 * 100_000


@needs_library
def test_the_library_has_every_target():
    for group in native.TARGETS:
        assert native.has_targets(group, "cuda"), group


@needs_library
def test_a_training_step_lowers_for_cuda(monkeypatch):
    """Gradients, batch and scan lower without a GPU, and the module holds all six custom calls."""
    monkeypatch.setenv("FG3DGS_BACKEND", "cuda")
    scene = make_scene(50, 64, 48, seed=0, batch=(2,))
    levels = hash_encoding.make_levels(Encoding(16, 38.4))
    tables = jnp.zeros(levels.num_params)

    axes = {name: 0 for name in scene._fields} | {"camera": None}

    def value(tables, scene):
        moved = jnp.sum(hash_encoding_ffi.encode(tables, scene.means[0], levels=levels), -1)
        scene = scene._replace(means=scene.means + moved[:, None])

        def one(fields):
            return loss(render(type(scene)(**fields)))

        return jnp.sum(jax.vmap(one, (axes,))(scene._asdict()))

    def steps(tables, scene):

        def step(t, _):
            return t - jax.grad(value)(t, scene), None

        return jax.lax.scan(step, tables, None, length=3)[0]

    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in TARGETS]
    exported = jax.export.export(jax.jit(steps), platforms=["cuda"], disabled_checks=checks)
    module = exported(tables, scene).mlir_module()
    for name in TARGETS:
        assert f"@{name}" in module, name


@needs_library
def test_buffers_grow_with_what_they_hold():
    sizes = (1000, 64, 48, 3, 8000)
    state, work = (native.buffer_bytes(area, *sizes) for area in ("state", "bin"))
    assert state >= 1000 * 40 + 8000 * 8 + 12 * 4
    assert work >= 1000 * 28 + 8000 * 20
    assert native.buffer_bytes("blend_grad", *sizes) >= 8000 * 9 * 4
    assert native.buffer_bytes("project_grad", 257) >= 2 * 48


@gpu
def test_reference_and_kernels_count_the_same_pairs():
    scene = make_scene(60, WIDTH, HEIGHT, seed=8)
    projection = rasterizer.project(
        scene.means,
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.camera,
        width=WIDTH,
        height=HEIGHT,
        backend="cuda",
    )
    options = {"width": WIDTH, "height": HEIGHT, "background": scene.background}
    expected = reference.rasterize(projection, scene.colors, scene.opacities, **options)
    assert int(render(scene).aux.n_isects) == int(expected.aux.n_isects)
