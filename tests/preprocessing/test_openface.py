"""OpenFace's CSV: both spellings, times, failures, several faces, and what is refused."""

import numpy as np
import pytest

from fg3dgs_jax.preprocessing.express import channels as channels_lib
from fg3dgs_jax.preprocessing.express import openface

_META = ("frame", "face_id", "timestamp", "confidence", "success")
_UNITS = (*openface.INTENSITIES, *openface.PRESENCES)


def _curve(name, seconds):
    """Smooth and different for every column; presences step every half second."""
    k = _UNITS.index(name)
    if name.endswith("_c"):
        return (np.asarray(seconds) * 2 + 0.1 * k) // 1 % 2
    return 2.5 + 2.5 * np.sin(np.asarray(seconds) * 1.3 + k)


def _table(count=75, fps=25.0, **changes):
    """Column -> values, as FeatureExtraction writes them."""
    seconds = np.arange(count) / fps
    table = {
        "frame": np.arange(1, count + 1),
        "face_id": np.zeros(count, int),
        "timestamp": seconds,
        "confidence": np.full(count, 0.98),
        "success": np.ones(count, int),
        "gaze_0_x": np.full(count, 0.1),
    }
    table |= {name: _curve(name, seconds) for name in _UNITS}
    return {k: v for k, v in (table | changes).items() if v is not None}


def _write(path, table, space=" "):
    lines = [f",{space}".join(table)]
    lines += [f",{space}".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("space", [" ", ""])
def test_one_row_per_frame(tmp_path, space):
    track = openface.channels(_write(tmp_path / "a.csv", _table(), space), 75)
    assert track.names == _UNITS and len(openface.INTENSITIES) == 17
    assert len(openface.PRESENCES) == 18 and "AU28_c" in track.names
    assert track.values.shape == (75, 35) and track.values.dtype == np.float32
    for k, name in enumerate(_UNITS):
        expected = np.minimum(_curve(name, np.arange(75) / 25), openface.maximum(name))
        np.testing.assert_allclose(track.values[:, k], expected, atol=1e-6)
    assert track.values[:, track.names.index("AU45_r")].max() == 2.0


def test_times_of_another_frame_rate_and_a_longer_clip(tmp_path):
    track = openface.channels(_write(tmp_path / "a.csv", _table(150, 29.97)), 100)
    times = np.arange(100) / 25
    found = track.values[:, track.names.index("AU12_r")]
    np.testing.assert_allclose(found, _curve("AU12_r", times), atol=2e-3)
    steps = track.values[:, track.names.index("AU12_c")]
    assert set(np.unique(steps)) == {0.0, 1.0}
    assert np.mean(steps == _curve("AU12_c", times)) > 0.93  # within one row of each step


def test_a_clip_may_begin_later_than_the_table(tmp_path):
    path = _write(tmp_path / "a.csv", _table(150))
    late = openface.channels(path, 50, start=2.0)
    np.testing.assert_array_equal(late.values, openface.channels(path, 100).values[50:])
    with pytest.raises(openface.OpenFaceError, match=r"expected 5 to 6\.96 s"):
        openface.channels(path, 50, start=5.0)


def test_frames_without_times_must_be_as_many(tmp_path):
    path = _write(tmp_path / "a.csv", _table(timestamp=None, frame=None, face_id=None))
    assert openface.channels(path, 75).valid.all()
    with pytest.raises(ValueError, match="75 rows and no timestamp column; expected 60"):
        openface.channels(path, 60)


def test_failures_are_bridged_even_where_they_are_no_numbers(tmp_path):
    table = _table()
    table["success"][30:34] = 0
    table["AU01_r"] = [*table["AU01_r"][:30], "nan", "-nan(ind)", 0, 0, *table["AU01_r"][34:]]
    track = openface.channels(_write(tmp_path / "a.csv", table), 75)
    np.testing.assert_array_equal(track.valid, table["success"] > 0)
    ends = _curve("AU01_r", np.array([29, 34]) / 25)
    expected = np.interp(np.arange(30, 34), [29, 34], ends)
    np.testing.assert_allclose(track.values[30:34, 0], expected, atol=1e-5)


def test_the_face_seen_most_often_is_taken(tmp_path):
    one, two = _table(), _table(20, face_id=np.ones(20, int), AU01_r=np.full(20, 5.0))
    table = {k: np.concatenate([one[k], two[k]]) for k in one}
    order = np.argsort(table["timestamp"], kind="stable")
    table = {k: v[order] for k, v in table.items()}
    track = openface.channels(_write(tmp_path / "a.csv", table), 75)
    expected = _curve("AU01_r", np.arange(75) / 25)
    np.testing.assert_allclose(track.values[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AU09_r": None}, "lacks 1 of the 17 intensities, AU09_r"),
        ({"success": np.zeros(75, int)}, "a face in 0 of 75 rows"),
        ({"AU12_r": ["x"] * 75}, "no numbers"),
        ({"timestamp": np.zeros(75)}, "timestamp 0 after 0; expected rising"),
        ({"timestamp": np.arange(75) / 50}, "covers 0.00 to 1.48 s; expected 0 to 2.96 s"),
        ({"timestamp": 1 + np.arange(75) / 25}, "covers 1.00 to"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(openface.OpenFaceError, match=message) as caught:
        openface.channels(_write(tmp_path / "a.csv", _table(**change)), 75)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks 17"),
        (b"a,b\n1,2\n", "lacks 17"),
        (b"a,b\n1,2,3\n", "3 fields in row 2; expected 2"),
        (bytes(range(256)), "no CSV"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(openface.OpenFaceError, match=message):
        openface.channels(tmp_path / "a.csv", 75)


def test_action_units_take_the_proxies_place(tmp_path):
    names = ("jawOpen", "gaze_x", *channels_lib.ACTION_UNITS)
    channels = np.random.default_rng(0).random((75, len(names))).astype(np.float32)
    track = openface.channels(_write(tmp_path / "a.csv", _table()), 75)
    found, order = channels_lib.with_openface(channels, names, track)
    assert found.shape == (75, 2 + 35) and found.dtype == np.float32
    assert order[:2] == names[:2] and order[-6:] == names[2:] and order[-1] == "AU45"
    assert len(set(order)) == len(order) and {"AU02", "AU26", "AU28_c"} <= set(order)
    assert found.min() >= 0 and found.max() <= 1
    raw = dict(zip(track.names, track.values.T, strict=True))
    by_name = dict(zip(order, found.T, strict=True))
    np.testing.assert_array_equal(by_name["jawOpen"], channels[:, 0])
    np.testing.assert_allclose(by_name["AU06"], raw["AU06_r"] / 5)
    np.testing.assert_allclose(by_name["AU45"], raw["AU45_r"] / 2)
    np.testing.assert_allclose(by_name["AU28_c"], raw["AU28_c"])
