"""Converted files come back as they were; anything else is refused in one line."""

import numpy as np
import pytest

from fg3dgs_jax.weights import variables


def test_a_converted_file_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    tree = {"params": {"conv": {"kernel": rng.normal(size=(3, 3, 1, 2))}}, "scale": np.float32(2)}
    variables.save(tmp_path / "net.npz", tree)
    back = variables.load(tmp_path / "net.npz", convert=None)
    assert variables.flatten(back).keys() == {"params/conv/kernel", "scale"}
    np.testing.assert_array_equal(
        back["params"]["conv"]["kernel"], tree["params"]["conv"]["kernel"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 but cut short")
    with pytest.raises(ValueError, match=r"no npz of arrays.*convert"):
        variables.load(tmp_path / "bad.npz", convert=None)
    np.savez(tmp_path / "code.npz", net=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="no npz of arrays"):
        variables.load(tmp_path / "code.npz", convert=None)
    with pytest.raises(ValueError, match=r"expected NAME\.npz"):
        variables.save(tmp_path / "net.bin", {})
