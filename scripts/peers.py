"""Other rasterizers with one interface, to be timed beside ours and compared with it.

A peer takes a `Scene` and returns (picture, gradients), two `Call`s. The first returns the images
[B, H, W, 3]. The second returns the gradients of mean((image - 0.5)^2) to means, quats, scales,
opacities and colors. A peer that is not installed raises NotInstalled.

gsplat clamps alpha at 0.999 and splax too, this package at 0.99: no scene that is compared has an
opacity above 0.99, except in the test of the clamp, which sets gsplat's by `alpha_max`.
"""

import functools
import importlib.util
import itertools
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

TILE = 16  # px
ALPHA_MIN, TRANSMITTANCE_MIN = 1.0 / 255.0, 1e-4


class NotInstalled(Exception):
    """What is missing for a peer, in a few words."""


class Scene(NamedTuple):
    """B pictures of N Gaussians each, of one camera; NumPy float32."""

    means: np.ndarray  # [B, N, 3] m
    quats: np.ndarray  # [B, N, 4] wxyz
    scales: np.ndarray  # [B, N, 3] m
    opacities: np.ndarray  # [B, N]
    colors: np.ndarray  # [B, N, 3]
    world_to_camera: np.ndarray  # [4, 4]
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy, px
    width: int  # px
    height: int  # px

    @property
    def arrays(self):
        """What gradients are taken to."""
        return self[:5]


def _require(package):
    """The folder of an installed package, found without running any of it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise NotInstalled(f"{package} is not installed")
    return pathlib.Path(spec.submodule_search_locations[0])


class Call(NamedTuple):
    """A function without arguments, and how its result is waited for."""

    begin: Callable[[], Any]
    wait: Callable[[Any], Any]
    repeat: Callable[[int], Any] | None = None  # begins so many, each after the one before

    def __call__(self):
        """Returns its result when it is computed."""
        return self.wait(self.begin())

    def many(self, count):
        """Returns when `count` calls in a row are done, without waiting in between."""
        if self.repeat is not None:
            self.wait(self.repeat(count))
            return
        for _ in range(count):
            result = self.begin()
        self.wait(result)


def _torch_calls(draw, arrays):
    """(picture, gradients) of `draw(*tensors)` on torch tensors."""
    import torch

    def done(values):
        if arrays[0].is_cuda:
            torch.cuda.synchronize()
        return values

    @torch.no_grad()
    def picture():
        return draw(*arrays)

    def gradients():
        leaves = [x.detach().requires_grad_() for x in arrays]
        return torch.autograd.grad(torch.mean((draw(*leaves) - 0.5) ** 2), leaves)

    return Call(picture, done), Call(gradients, done)


# gsplat's torch reference needs CUDA for its pairs and its sums along rays. They are replaced here.


@functools.cache
def gsplat_reference(alpha_max=0.999):
    """The module `gsplat/cuda/_torch_impl.py` with another clamp of alpha, made to run on a CPU.

    It is read by its path: gsplat's own __init__ compiles CUDA code where it finds nvcc.
    """
    path = _require("gsplat") / "cuda" / "_torch_impl.py"
    source = path.read_text()
    if source.count("0.999") != 1 or source.count("from nerfacc import") != 1:
        raise NotInstalled("this gsplat is not version 1.5.3")
    source = source.replace("0.999", repr(alpha_max))
    source = source.replace("from nerfacc import", "from ._wrapper import")
    package = f"_gsplat_reference_{alpha_max}".replace(".", "_")
    shell, stand_ins = types.ModuleType(package), types.ModuleType(f"{package}._wrapper")
    shell.__path__ = []
    stand_ins.rasterize_to_indices_in_range = functools.partial(_blended_pairs, alpha_max)
    stand_ins.render_weight_from_alpha = _render_weight_from_alpha
    stand_ins.accumulate_along_rays = _accumulate_along_rays
    sys.modules[package], sys.modules[stand_ins.__name__] = shell, stand_ins
    module = types.ModuleType(f"{package}._torch_impl")
    module.__package__ = package
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def _blended_pairs(
    alpha_max,
    start,
    stop,
    transmittances,
    means2d,
    conics,
    opacities,
    width,
    height,
    tile_size,
    offsets,
    gaussian_ids,
):
    """(Gaussian, pixel, image) of every pair that is blended, a pixel's in a row, nearest first.

    One image; `start` to `stop` must span all lists. means2d [N, 2], conics [N, 3], opacities [N];
    offsets [tiles_y, tiles_x] into gaussian_ids.
    """
    import torch

    bounds = [*offsets.flatten().tolist(), len(gaussian_ids)]
    assert start == 0 and max(np.diff(bounds)) <= stop * tile_size**2
    gaussians, pixels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    with torch.no_grad():
        for tile, (first, last) in enumerate(itertools.pairwise(bounds)):
            ids = gaussian_ids[first:last].long()
            y, x = (tile_size * t for t in divmod(tile, offsets.shape[-1]))
            rows = torch.arange(y, min(y + tile_size, height))
            columns = torch.arange(x, min(x + tile_size, width))
            pixel = (rows[:, None] * width + columns).flatten()
            dx = (pixel % width)[:, None] + 0.5 - means2d[ids, 0]
            dy = (pixel // width)[:, None] + 0.5 - means2d[ids, 1]
            a, b, c = conics[ids].unbind(-1)
            power = 0.5 * (a * dx**2 + c * dy**2) + b * dx * dy
            alpha = (opacities[ids] * torch.exp(-power)).clamp_max(alpha_max)
            alpha = torch.where((power >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
            after = torch.cumprod(1.0 - alpha.double(), 1)
            row, column = torch.nonzero((alpha > 0) & (after > TRANSMITTANCE_MIN), as_tuple=True)
            gaussians.append(ids[column])
            pixels.append(pixel[row])
    gaussians, pixels = torch.cat(gaussians), torch.cat(pixels)
    return gaussians, pixels, torch.zeros_like(pixels)


def _render_weight_from_alpha(alphas, *, ray_indices, n_rays):
    """alpha times what the pairs before it on the ray let through; the rays lie in a row."""
    import torch

    del n_rays
    logs = torch.log1p(-alphas.double())
    before = torch.cumsum(logs, 0) - logs
    place = torch.arange(len(alphas))
    begins = torch.ones_like(place, dtype=torch.bool)
    begins[1:] = ray_indices[1:] != ray_indices[:-1]
    first = torch.cummax(torch.where(begins, place, 0), 0).values if len(place) else place
    through = torch.exp(before - before[first]).to(alphas.dtype)
    return alphas * through, through


def _accumulate_along_rays(weights, values, *, ray_indices, n_rays):
    terms = weights[:, None] if values is None else weights[:, None] * values
    return terms.new_zeros(n_rays, terms.shape[-1]).index_add(0, ray_indices, terms)


def _tile_lists(means2d, radii, depths, tiles_x, tiles_y):
    """What gsplat's `_isect_tiles` finds in Python loops: each tile's Gaussians, nearest first.

    means2d, radii [N, 2] px, depths [N] -> ids [pairs], offsets [tiles_y, tiles_x] into them.
    """
    import torch

    with torch.no_grad():
        grid = torch.tensor([tiles_x, tiles_y])
        low = torch.floor((means2d - radii) / TILE).clamp(min=torch.zeros(2), max=grid).long()
        high = torch.ceil((means2d + radii) / TILE).clamp(min=torch.zeros(2), max=grid).long()
        size = torch.where((radii > 0).all(-1, keepdim=True), high - low, 0)
        order = torch.argsort(depths, stable=True)
        count = size.prod(-1)[order]
        ids = order.repeat_interleave(count)
        within = torch.arange(len(ids)) - (count.cumsum(0) - count).repeat_interleave(count)
        x = low[ids, 0] + within % size[ids, 0]
        y = low[ids, 1] + within // size[ids, 0]
        tile, place = torch.sort(y * tiles_x + x, stable=True)
        offsets = torch.searchsorted(tile, torch.arange(tiles_x * tiles_y))
        return ids[place], offsets.reshape(tiles_y, tiles_x)


def gsplat_reference_render(
    means,
    quats,
    scales,
    opacities,
    colors,
    background,
    world_to_camera,
    intrinsics,
    width,
    height,
    alpha_max=0.999,
):
    """Image [H, W, D] and alpha [H, W] of one picture; differentiable torch tensors on a CPU."""
    import torch

    impl = gsplat_reference(alpha_max)
    fx, fy, cx, cy = intrinsics
    matrix = means.new_tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    covariances, _ = impl._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, _ = (
        x if x is None else x[0]
        for x in impl._fully_fused_projection(
            means, covariances, world_to_camera[None], matrix[None], width, height
        )
    )
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    ids, offsets = _tile_lists(means2d, radii, depths, tiles_x, tiles_y)
    image, alpha = impl._rasterize_to_pixels(
        means2d, conics, colors, opacities, width, height, TILE, offsets.int(), ids, background
    )
    return image, torch.squeeze(alpha, -1)


def gsplat_torch(scene: Scene):
    """gsplat's reference in torch, on the CPU, a picture at a time."""
    import torch

    gsplat_reference()
    pose = torch.tensor(scene.world_to_camera)

    def draw(*arrays):
        pictures = [
            gsplat_reference_render(*one, None, pose, scene.intrinsics, scene.width, scene.height)[
                0
            ]
            for one in zip(*arrays, strict=True)
        ]
        return torch.stack(pictures)

    return _torch_calls(draw, [torch.tensor(x) for x in scene.arrays])


def gsplat_cuda(scene: Scene):
    """gsplat's CUDA kernels, all pictures in one call."""
    _require("gsplat")
    import torch

    if not torch.cuda.is_available():
        raise NotInstalled("torch has no CUDA here")
    from gsplat import rasterization

    count = len(scene.means)
    fx, fy, cx, cy = scene.intrinsics
    pose = torch.tensor(scene.world_to_camera, device="cuda").expand(count, 1, 4, 4)
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], device="cuda")
    options = dict(width=scene.width, height=scene.height, packed=False)

    def draw(*arrays):
        matrices = matrix.expand(count, 1, 3, 3)
        return rasterization(*arrays, viewmats=pose, Ks=matrices, **options)[0][:, 0]

    return _torch_calls(draw, [torch.tensor(x, device="cuda") for x in scene.arrays])


def splax(scene: Scene):
    """splax on JAX's default device; its CPU form emulates a GPU's blocks with fibers.

    Needs SCIPY_ARRAY_API=1 in the environment before anything imports scipy.
    """
    _require("splax")
    import jax
    import jax.numpy as jnp
    import warp

    if jax.default_backend() == "cpu" and "splax" not in sys.modules:
        warp.config.enable_cpu_blocks = True
        original = warp.jax_callable

        def without_graphs(*args, **options):
            # CUDA graphs, which a CPU refuses.
            return original(*args, **options | {"graph_mode": warp.JaxCallableGraphMode.NONE})

        warp.jax_callable = without_graphs
    warp.config.log_level = warp.LOG_WARNING
    import splax as package

    size = (scene.height, scene.width)
    fx, fy, cx, cy = scene.intrinsics
    pose = jnp.asarray(scene.world_to_camera)

    def one(means, quats, scales, opacities, colors):
        *projected, _, ends = package.project(
            means, scales, quats, pose, opacities=opacities, img_shape=size, f=(fx, fy), c=(cx, cy)
        )
        return package.rasterize(colors, opacities, jnp.zeros(3), *projected, ends, img_shape=size)[
            0
        ]

    picture = jax.jit(jax.vmap(one))
    return jax_calls(picture, [jnp.asarray(x) for x in scene.arrays])


def jax_calls(picture, arrays):
    """(picture, gradients) of a jitted JAX function. Many calls are one program: a scan in which
    each call's input depends on the result before, by nothing that changes it."""
    import jax
    import jax.numpy as jnp

    def loss(*arrays):
        return jnp.mean((picture(*arrays) - 0.5) ** 2)

    def call(function):

        @functools.partial(jax.jit, static_argnums=0)
        def scan(count, first, *others):

            def body(shift, _):
                result = jax.lax.optimization_barrier(function(first + shift, *others))
                return 1e-30 * sum(x.ravel()[0] for x in jax.tree.leaves(result)), None

            return jax.lax.scan(body, jnp.float32(0.0), length=count)[0]

        return Call(
            lambda: function(*arrays), jax.block_until_ready, lambda count: scan(count, *arrays)
        )

    gradients = jax.jit(jax.grad(loss, tuple(range(len(arrays)))))
    return call(picture), call(gradients)


CPU = {"gsplat_torch": gsplat_torch, "splax": splax}
GPU = {"gsplat_cuda": gsplat_cuda, "splax": splax}
