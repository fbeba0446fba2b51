"""Files of arrays that are damaged in any of the usual ways."""

import numpy as np
import pytest

from fg3dgs_jax.system import arrays


def spoil(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "a flipped byte":
        data[len(data) // 2] ^= 0xFF
    elif how == "zeros":
        data = bytes(len(data))
    elif how == "text":
        data = b"<html>404</html>"
    elif how == "empty":
        data = b""
    path.write_bytes(data)


HOW = ("truncated", "zeros", "text", "empty")


@pytest.mark.parametrize("how", (*HOW, "a flipped byte", "missing"))
def test_a_damaged_npz(tmp_path, how):
    path = tmp_path / "camera.npz"
    np.savez(path, pose=np.random.default_rng(0).normal(size=(50, 4, 4)))
    assert arrays.is_whole(path) and arrays.read_npz(path, "")["pose"].shape == (50, 4, 4)
    path.unlink() if how == "missing" else spoil(path, how)
    assert not arrays.is_whole(path)
    with pytest.raises(arrays.Damaged, match=r"camera\.npz is (damaged|missing).*; copy it again"):
        arrays.read_npz(path, "copy it again")


@pytest.mark.parametrize("mapped", (True, False))
@pytest.mark.parametrize("how", (*HOW, "missing"))
def test_a_damaged_npy(tmp_path, how, mapped):
    path = tmp_path / "frames.npy"
    np.save(path, np.ones((50, 40), np.float32))
    assert arrays.is_whole(path) and arrays.read_npy(path, "", mapped).shape == (50, 40)
    path.unlink() if how == "missing" else spoil(path, how)
    assert not arrays.is_whole(path)
    with pytest.raises(arrays.Damaged, match=r"frames\.npy is (damaged|missing).*; copy it again"):
        arrays.read_npy(path, "copy it again", mapped)
