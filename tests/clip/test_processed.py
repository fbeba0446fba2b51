"""Writing a processed folder's files: whole, or an error."""

import json
import shutil

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.preprocessing.report import pictures
from fg3dgs_jax.system import arrays


def test_a_plate_comes_back_as_it_was_written(tmp_path):
    plate = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    format.save_arrays(tmp_path, background=plate)
    np.testing.assert_array_equal(pictures.read_picture(tmp_path / "background.png"), plate)
    assert [p.name for p in tmp_path.iterdir()] == ["background.png"]


def test_a_plate_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)  # what it says of a full disk
    monkeypatch.setattr(processed.pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        format.save_arrays(tmp_path, background=np.zeros((4, 4, 3), np.uint8))
    assert not (tmp_path / "background.png").exists()


def test_the_last_eleventh_is_for_the_test(tmp_path):
    """Spec, section 11: F = 6500."""
    format.save_meta(
        tmp_path, num_frames=6500, width=8, height=8, intrinsics=(8, 8, 4, 4), source="none"
    )
    split = json.loads((tmp_path / "meta.json").read_text())["split"]
    assert split == {"train": [0, 5909], "test": [5909, 6500]}


@pytest.mark.parametrize("how", ("truncated", "empty", "missing"))
@pytest.mark.parametrize(
    "name",
    (
        "frames.npy",
        "torso.npy",
        "camera.npz",
        "landmarks.npz",
        "expression.npz",
        "background.png",
        "meta.json",
    ),
)
def test_a_damaged_file_is_named_with_the_way_out(folder, tmp_path, name, how):
    if (name, how) == ("meta.json", "missing"):
        pytest.skip("that is an unfinished folder")
    shutil.copytree(folder, tmp_path / "clip")
    path = tmp_path / "clip" / name
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
    with pytest.raises(ValueError) as caught:
        processed.load_clip(tmp_path / "clip")
    line = str(caught.value)
    assert str(path) in line and "run preprocess again" in line and "\n" not in line


def test_damaged_features_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "clip")
    (tmp_path / "clip" / "audio_mel.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(arrays.Damaged, match=r"audio_mel\.npy is damaged .*run preprocess again"):
        processed.load_clip(tmp_path / "clip").audio_features("mel")
