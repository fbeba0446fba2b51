"""Pickled dicts of arrays against pickle itself; what is anything else is refused unexecuted."""

import os
import pickle

import numpy as np
import pytest

from fg3dgs_jax.weights.formats import numpy_pickles
from fg3dgs_jax.weights.formats.pickles import CheckpointError


def _save(path, value, protocol=3):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_dtype_order_and_shape(tmp_path, protocol):
    rng = np.random.default_rng(0)
    kinds = (np.bool_, np.uint8, np.int8, np.int16, np.uint32, np.int64, np.float16, np.float64)
    shared = rng.normal(size=(2, 3)).astype(np.float32)
    tree = {
        "kinds": {np.dtype(k).name: (9 * rng.random((3, 4))).astype(k) for k in kinds},
        "deep": {"er": {"kernel": shared, "again": shared}},
        "fortran": np.asfortranarray(rng.normal(size=(3, 4, 5))),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "window": rng.normal(size=(6, 4))[::2],
    }
    found = numpy_pickles.load(_save(tmp_path / "a.ckpt", tree, protocol))
    expected = {f"kinds/{k}": v for k, v in tree["kinds"].items()}
    expected |= {"deep/er/kernel": shared, "deep/er/again": shared}
    expected |= {k: tree[k] for k in ("fortran", "scalar", "empty", "window")}
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype and not found[key].flags.writeable
        np.testing.assert_array_equal(found[key], array)


class _Call:
    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("protocol", [3, 5])
def test_nothing_is_executed(tmp_path, protocol):
    canary = tmp_path / "canary"
    array = np.zeros(3, np.float32)
    for call in (
        _Call(os.system, (f"touch {canary}",)),
        _Call(eval, (f"open({str(canary)!r}, 'w')",)),
        _Call(np.load, (str(canary),)),
        _Call(np.ndarray, ((3,),)),
        np.dtype([("a", "f4")]),
        np.array([1, "x"], object),
    ):
        with pytest.raises(CheckpointError) as caught:
            numpy_pickles.load(_save(tmp_path / "a.ckpt", {"a": array, "b": call}, protocol))
        assert "\n" not in str(caught.value) and "a.ckpt" in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "no arrays"),
        ([np.zeros(2)], "no dict"),
        ({"a": 3}, "holds a int under 'a'"),
        ({"a": np.zeros(2, ">f4")}, "big-endian"),
        (b"", "broken pickle"),
        (b"nonsense", "broken pickle"),
        (pickle.dumps({"a": np.zeros(2)}, 3)[:-9], "broken pickle"),
        (pickle.dumps({"a": np.zeros(2)}, 3).replace(b"K\x02\x85", b"K\x03\x85"), "16 bytes for"),
        (b"}q\x00(U\x01ah\x00u.", "nests deeper"),
    ],
)
def test_other_files_are_one_line(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        numpy_pickles.load(_save(tmp_path / "a.ckpt", value))
