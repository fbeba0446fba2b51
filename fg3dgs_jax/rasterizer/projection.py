"""`project`: Gaussians to splats, by the custom call or the reference, with its gradient rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native
from fg3dgs_jax.rasterizer import reference
from fg3dgs_jax.rasterizer.types import (
    Array,
    Projection,
    check_camera,
    check_gaussians,
    check_size,
    leading_shape,
)
from fg3dgs_jax.types import Camera


def project(
    means: Array,
    quats: Array,
    scales: Array,
    opacities: Array,
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

    means [..., N, 3] m, quats [..., N, 4] wxyz of any length, scales [..., N, 3] m, opacities
    [..., N] in [0, 1]; leading dims may each be 1 where others have B, and vmap works. Gradients
    flow to means, quats, scales and camera.world_to_camera; opacities decide only the radii, and
    the intrinsics are constants. Culled Gaussians (behind `near`, off the picture, fainter than
    1/255, NaN or infinite) get radii 0.
    """
    check_gaussians(means, quats, scales, opacities)
    check_camera(camera)
    check_size(width, height)
    camera = Camera(camera.world_to_camera, *jax.lax.stop_gradient(tuple(camera)[1:]))
    options = {"eps2d": eps2d, "near": near, "far": far, "antialiased": antialiased}
    backend = native.resolve_backend(backend)
    if backend == "reference":
        return reference.project(
            means, quats, scales, opacities, camera, width=width, height=height, **options
        )
    intrinsics = jnp.stack(jnp.broadcast_arrays(*map(_float32, camera[1:])), axis=-1)
    operands = [means, quats, scales, opacities, camera.world_to_camera, intrinsics]
    operands = align_leading(list(map(_float32, operands)), (2, 2, 2, 1, 2, 1))
    static = (
        backend, int(width), int(height), float(eps2d), float(near), float(far), bool(antialiased)
    )  # fmt: skip
    return Projection(*_project(static, *operands))


def _float32(x) -> Array:
    return jnp.asarray(x, jnp.float32)


def align_leading(operands: list[Array], cores: tuple[int, ...]) -> list[Array]:
    """Gives operands equally many leading dims, by 1s in front; `cores`: their trailing ranks."""
    rank = max(x.ndim - core for x, core in zip(operands, cores, strict=True))
    return [
        x.reshape((1,) * (rank - x.ndim + core) + x.shape)
        for x, core in zip(operands, cores, strict=True)
    ]


def batch_shape(operands, cores: tuple[int, ...]) -> tuple[int, ...]:
    """What the operands' leading dims broadcast to."""
    return leading_shape(*(x.shape[: x.ndim - c] for x, c in zip(operands, cores, strict=True)))


def sum_to_shape(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums a per-image gradient over the leading dims in which the operand was shared (1)."""
    pairs = enumerate(zip(gradient.shape, shape, strict=True))
    shared = tuple(d for d, (have, want) in pairs if have != want)
    return jnp.sum(gradient, axis=shared, keepdims=True) if shared else gradient


def workspace(batch: tuple[int, ...], area: str, *sizes: int) -> jax.ShapeDtypeStruct:
    """A buffer of the CUDA library as a result: see native.buffer_bytes."""
    return jax.ShapeDtypeStruct((*batch, native.buffer_bytes(area, *sizes)), jnp.uint8)


def _attributes(static) -> dict:
    _, width, height, eps2d, near, far, antialiased = static
    return {
        "width": np.int64(width),
        "height": np.int64(height),
        "eps2d": np.float32(eps2d),
        "near": np.float32(near),
        "far": np.float32(far),
        "antialiased": np.bool_(antialiased),
    }


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(static, means, quats, scales, opacities, pose, intrinsics):
    batch = batch_shape((means, quats, scales, opacities, pose, intrinsics), (2, 2, 2, 1, 2, 1))
    n = means.shape[-2]
    shapes = [(n, 2), (n,), (n, 3), (n, 2), (n,)]
    dtypes = [jnp.float32, jnp.float32, jnp.float32, jnp.int32, jnp.float32]
    call = jax.ffi.ffi_call(
        "fg3dgs_project_fwd",
        [jax.ShapeDtypeStruct(batch + s, d) for s, d in zip(shapes, dtypes, strict=True)],
        vmap_method="expand_dims",
    )
    return tuple(call(means, quats, scales, opacities, pose, intrinsics, **_attributes(static)))


def _project_fwd(static, *operands):
    out = _project(static, *operands)
    return out, (operands, out[3])


def _project_bwd(static, residuals, cotangents):
    operands, radii = residuals
    means, quats, scales, opacities, pose, intrinsics = operands
    v_means2d, v_depths, v_conics, _, v_compensations = cotangents
    batch, n = radii.shape[:-2], radii.shape[-2]
    results = [
        jax.ShapeDtypeStruct(batch + s, jnp.float32) for s in [(n, 3), (n, 4), (n, 3), (4, 4)]
    ]
    if static[0] == "cuda":
        results.append(workspace(batch, "project_grad", n))
    call = jax.ffi.ffi_call("fg3dgs_project_bwd", results, vmap_method="expand_dims")
    gradients = call(
        means, quats, scales, pose, intrinsics, radii,
        v_means2d, v_depths, v_conics, v_compensations, **_attributes(static),
    )[:4]  # fmt: skip
    wanted = (means, quats, scales, pose)
    v_means, v_quats, v_scales, v_pose = (
        sum_to_shape(g, x.shape) for g, x in zip(gradients, wanted, strict=True)
    )
    return v_means, v_quats, v_scales, jnp.zeros_like(opacities), v_pose, jnp.zeros_like(intrinsics)


_project.defvjp(_project_fwd, _project_bwd)
