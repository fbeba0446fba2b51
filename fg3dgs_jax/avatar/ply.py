"""Gaussians in a .ply, in the layout of 3DGS (Kerbl et al. 2023) that viewers read.

Scales are stored as logarithms, opacities as logits, quaternions as wxyz, and of the spherical
harmonics first all coefficients of red, then of green, then of blue. Lengths are metres in the
head's frame: x to the person's left, y up, z towards the viewer.
"""

import os

import jax
import numpy as np

from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.models.gaussians import Drawable

_FAINTEST, _SMALLEST = 1e-6, 1e-9  # opacity and metres: logits and logarithms stay finite


class PlyError(ValueError):
    """A .ply that holds no Gaussians; one line that says what was found and what was expected."""


def write(path: os.PathLike[str] | str, gaussians: Drawable) -> None:
    """Writes N Gaussians, little endian; whole or not at all.

    Args:
      path: of the file, in a folder that exists.
      gaussians: of any degree of spherical harmonics, as arrays.
    """
    means, quats, scales, opacities, sh = (np.asarray(x, np.float32) for x in gaussians)
    opacities = np.clip(opacities, _FAINTEST, 1 - _FAINTEST)
    quats = quats / np.maximum(np.linalg.norm(quats, axis=-1, keepdims=True), _SMALLEST)
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), -1)
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(rest.shape[1])]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    columns = np.concatenate(
        [
            means,
            np.zeros_like(means),
            sh[:, 0],
            rest,
            np.log(opacities / (1 - opacities))[:, None],
            np.log(np.maximum(scales, _SMALLEST)),
            quats,
        ],
        axis=1,
    )
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(columns)}"]
    head += [f"property float {name}" for name in names] + ["end_header", ""]
    with whole(path) as part, open(part, "wb") as file:
        file.write("\n".join(head).encode())
        file.write(columns.astype("<f4").tobytes())


def read(path: os.PathLike[str] | str) -> Drawable:
    """Returns the Gaussians of a file that `write`, or a program of 3DGS, wrote.

    Raises:
      PlyError: another kind of file, one that is cut short, or without these properties.
    """
    with open(path, "rb") as file:
        lines = []
        while not lines or lines[-1] != "end_header":
            line = file.readline(200)
            if not line.endswith(b"\n") or len(lines) > 200:
                raise PlyError(f"{path} has no header of a .ply; expected Gaussians as of 3DGS")
            lines.append(line.decode("ascii", "replace").strip())
        data = file.read()
    names = [x.split()[-1] for x in lines if x.startswith("property float ")]
    count = next((int(x.split()[-1]) for x in lines if x.startswith("element vertex ")), -1)
    known = "format binary_little_endian 1.0" in lines and count >= 0
    if not known or sum(x.startswith("property ") for x in lines) != len(names):
        raise PlyError(f"{path} is not binary, or has other numbers than floats; expected 3DGS's")
    if len(data) < 4 * count * len(names):
        raise PlyError(f"{path} is cut short: {len(data)} bytes for {count} Gaussians")
    table = np.frombuffer(data, "<f4", count * len(names)).reshape(count, len(names))
    columns = dict(zip(names, table.T.astype(np.float32), strict=True))

    def pick(*wanted: str) -> np.ndarray:
        if missing := [name for name in wanted if name not in columns]:
            raise PlyError(f"{path} has no {missing[0]}; expected Gaussians as of 3DGS")
        return np.stack([columns[name] for name in wanted], -1)

    rest = sum(name.startswith("f_rest_") for name in names)
    sh = np.zeros((count, 1 + rest // 3, 3), np.float32)
    sh[:, 0] = pick("f_dc_0", "f_dc_1", "f_dc_2")
    if rest:
        coefficients = pick(*(f"f_rest_{i}" for i in range(rest)))
        sh[:, 1:] = coefficients.reshape(count, 3, rest // 3).transpose(0, 2, 1)
    fields = (
        pick("x", "y", "z"),
        pick("rot_0", "rot_1", "rot_2", "rot_3"),
        np.exp(pick("scale_0", "scale_1", "scale_2")),
        1 / (1 + np.exp(-pick("opacity")[:, 0])),
        sh,
    )
    return Drawable(*map(jax.device_put, fields))
