"""Writing a processed folder's files: whole, or an error."""

import json

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.preprocessing.report import pictures


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
