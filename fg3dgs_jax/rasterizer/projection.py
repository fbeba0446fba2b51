"""`project`: Gaussians to splats, by the custom call or the reference, with its gradient rule."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from fg3dgs_jax import native
from fg3dgs_jax.rasterizer import reference
from fg3dgs_jax.rasterizer.types import (
    Projection,
    check_camera,
    check_gaussians,
    check_size,
    leading_shape,
)
from fg3dgs_jax.types import Array, Camera

_CORES = (2, 2, 2, 1, 2, 1)  # trailing ranks of _project's operands


class _Options(NamedTuple):
    """What shapes a program: the attributes of the custom call, and who runs it."""

    backend: str
    width: int
    height: int
    eps2d: float
    near: float
    far: float
    antialiased: bool

    def attributes(self) -> dict[str, np.generic]:
        return {
            "width": np.int64(self.width),
            "height": np.int64(self.height),
            "eps2d": np.float32(self.eps2d),
            "near": np.float32(self.near),
            "far": np.float32(self.far),
            "antialiased": np.bool_(self.antialiased),
        }


def project(
    means: Float[Array, "*#batch n 3"],
    quats: Float[Array, "*#batch n 4"],
    scales: Float[Array, "*#batch n 3"],
    opacities: Float[Array, "*#batch n"],
    camera: Camera,
    *,
    width: int,
    height: int,
    eps2d: float = reference.LOW_PASS,
    near: float = reference.NEAR,
    far: float = reference.FAR,
    antialiased: bool = False,
    backend: str = "auto",
) -> Projection:
    """Gaussians as a camera sees them (eqs. 2, 3).

    Leading dimensions may each be 1 where others have B, and vmap works. Gradients flow to means,
    quats, scales and camera.world_to_camera. Opacities decide only the radii, and the intrinsics
    are constants. Culled Gaussians get radii 0: behind `near`, off the picture, fainter than 1/255,
    NaN or infinite.

    Args:
      means: centres, metres.
      quats: wxyz, of any length.
      scales: standard deviations, metres.
      opacities: in [0, 1].
      camera: its fields may have leading dimensions too.
      width: of the picture, px.
      height: of the picture, px.
      eps2d: low-pass on the diagonal of the 2D covariance, px^2.
      near: nearest depth that is drawn, metres.
      far: farthest depth that is drawn, metres.
      antialiased: also compute `compensations`.
      backend: "auto", "cuda", "cpu" or "reference". See `native.resolve_backend`.

    Returns:
      The splats.

    Raises:
      ValueError: arguments that do not fit together, or a backend that is not built.
    """
    check_gaussians(means, quats, scales, opacities)
    check_camera(camera)
    check_size(width, height)
    camera = Camera(camera.world_to_camera, *jax.lax.stop_gradient(tuple(camera)[1:]))
    backend = native.resolve_backend(backend)
    if backend == "reference":
        return reference.project(
            means,
            quats,
            scales,
            opacities,
            camera,
            width=width,
            height=height,
            eps2d=eps2d,
            near=near,
            far=far,
            antialiased=antialiased,
        )
    intrinsics = jnp.stack(jnp.broadcast_arrays(*map(_float32, camera[1:])), axis=-1)
    operands = [means, quats, scales, opacities, camera.world_to_camera, intrinsics]
    operands = align_leading(list(map(_float32, operands)), _CORES)
    options = _Options(
        backend, int(width), int(height), float(eps2d), float(near), float(far), bool(antialiased)
    )
    return Projection(*_project(options, *operands))


def _float32(x: ArrayLike) -> Array:
    return jnp.asarray(x, jnp.float32)


def align_leading(operands: Sequence[Array], cores: tuple[int, ...]) -> list[Array]:
    """Gives operands equally many leading dimensions, by 1s in front.

    Args:
      operands: arrays of one image each, with any leading dimensions.
      cores: how many of each operand's dimensions belong to one image.

    Returns:
      The operands, reshaped.
    """
    rank = max(x.ndim - core for x, core in zip(operands, cores, strict=True))
    return [
        x.reshape((1,) * (rank - x.ndim + core) + x.shape)
        for x, core in zip(operands, cores, strict=True)
    ]


def batch_shape(operands: Sequence[Array], cores: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the leading dimensions of operands broadcast to."""
    return leading_shape(*(x.shape[: x.ndim - c] for x, c in zip(operands, cores, strict=True)))


def sum_to_shape(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums a gradient by image over the leading dimensions in which the operand was shared (1)."""
    pairs = enumerate(zip(gradient.shape, shape, strict=True))
    shared = tuple(d for d, (have, want) in pairs if have != want)
    return jnp.sum(gradient, axis=shared, keepdims=True) if shared else gradient


def workspace(batch: tuple[int, ...], area: str, *sizes: int) -> jax.ShapeDtypeStruct:
    """Declares a buffer of the CUDA library as a result. See `native.buffer_bytes`."""
    return jax.ShapeDtypeStruct((*batch, native.buffer_bytes(area, *sizes)), jnp.uint8)


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    """Declares a float32 result of a custom call."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape: int) -> jax.ShapeDtypeStruct:
    """Declares an int32 result of a custom call."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _call_project(options: _Options, *operands: Array) -> tuple[Array, ...]:
    batch, n = batch_shape(operands, _CORES), operands[0].shape[-2]
    call = jax.ffi.ffi_call(
        "fg3dgs_project_fwd",
        [f32(*batch, n, 2), f32(*batch, n), f32(*batch, n, 3), i32(*batch, n, 2), f32(*batch, n)],
        vmap_method="expand_dims",
    )
    return tuple(call(*operands, **options.attributes()))


class _Residuals(NamedTuple):
    """What the gradient of the projection reads."""

    operands: tuple[Array, ...]
    radii: Array


def _project_fwd(options: _Options, *operands: Array) -> tuple[tuple[Array, ...], _Residuals]:
    out = _call_project(options, *operands)
    return out, _Residuals(operands, out[3])


def _project_bwd(
    options: _Options, residuals: _Residuals, cotangents: tuple[Array | np.ndarray, ...]
) -> tuple[Array, ...]:
    operands, radii = residuals
    means, quats, scales, opacities, pose, intrinsics = operands
    v_means2d, v_depths, v_conics, _, v_compensations = cotangents  # float0 of the radii
    batch, n = radii.shape[:-2], radii.shape[-2]
    results = [f32(*batch, n, 3), f32(*batch, n, 4), f32(*batch, n, 3), f32(*batch, 4, 4)]
    if options.backend == "cuda":
        results.append(workspace(batch, "project_grad", n))
    call = jax.ffi.ffi_call("fg3dgs_project_bwd", results, vmap_method="expand_dims")
    arrays = (means, quats, scales, pose, intrinsics, radii)
    cotangents = (v_means2d, v_depths, v_conics, v_compensations)
    gradients = call(*arrays, *cotangents, **options.attributes())[:4]
    v_means, v_quats, v_scales, v_pose = (
        sum_to_shape(g, x.shape)
        for g, x in zip(gradients, (means, quats, scales, pose), strict=True)
    )
    return v_means, v_quats, v_scales, jnp.zeros_like(opacities), v_pose, jnp.zeros_like(intrinsics)


_project = jax.custom_vjp(_call_project, nondiff_argnums=(0,))
_project.defvjp(_project_fwd, _project_bwd)
