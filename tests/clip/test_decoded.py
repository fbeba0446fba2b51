"""Pictures that are decoded as they are asked for: the same whatever the order, and bounded."""

import concurrent.futures

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import decoded, format, processed, streams
from fg3dgs_jax.training import batches
from tests import painted

COUNT, HEIGHT, WIDTH = 11, 34, 46  # no multiples of a macro-block, nor of a group


def pictures():
    """Yields frames with labels and torso: some of it the frame's, some hidden, some an edge."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        frame = np.full((HEIGHT, WIDTH, 3), (60, 20 * i, 200 - 10 * i), np.uint8)
        labels = rng.integers(0, 20, (HEIGHT, WIDTH)).astype(np.uint8)
        torso = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        torso[20:, :, :3], torso[20:, :, 3] = frame[20:], 255
        torso[10:20, :, :] = 90, 60, 50, 255
        torso[8:10, :, :] = 90, 60, 50, 120
        yield frame, labels, torso


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams")
    streams.write(path, pictures())
    return path


def test_every_picture_is_at_its_number(folder):
    arrays = decoded.arrays(folder)
    frames, labels, torso = (arrays[name] for name in format.ARRAYS)
    assert frames.shape == (COUNT, HEIGHT, WIDTH, 3) and labels.ndim == 3 and len(torso) == COUNT
    assert torso.nbytes == COUNT * HEIGHT * WIDTH * 4 and torso.dtype == np.uint8
    whole = {name: np.stack(list(array)) for name, array in arrays.items()}
    for i, (frame, classes, layer) in enumerate(pictures()):
        np.testing.assert_array_equal(labels[i], classes)
        np.testing.assert_allclose(whole["frames"][i], frame, atol=6)
        np.testing.assert_allclose(whole["torso"][i], layer, atol=12)
        np.testing.assert_array_equal(whole["torso"][i, 20:, :, :3], whole["frames"][i, 20:])
        assert not whole["torso"][i, :8].any() and (whole["torso"][i, 10:, :, 3] == 255).all()
    for order in (range(COUNT - 1, -1, -1), [7, 0, 10, 3, 3, 9, 1]):  # backwards, at random
        for name, array in arrays.items():
            for i in order:
                np.testing.assert_array_equal(array[i], whole[name][i])


def test_it_is_indexed_like_an_array(folder):
    frames = decoded.arrays(folder)["frames"]
    whole = np.asarray(frames)
    np.testing.assert_array_equal(frames[-1], whole[-1])
    part = frames[2:9:3]
    assert isinstance(part, decoded.Decoded) and part.shape == (3, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(part, whole[2:9:3])
    np.testing.assert_array_equal(part[1:][0], whole[5])
    chosen = np.array([[1, 4], [10, 0]])
    np.testing.assert_array_equal(frames[chosen], whole[chosen])
    even = np.arange(COUNT) % 2 == 0
    np.testing.assert_array_equal(frames[even], whole[even])
    np.testing.assert_array_equal(np.isin(frames, [60]), np.isin(whole, [60]))
    with pytest.raises(IndexError):
        frames[COUNT]
    with pytest.raises(TypeError, match="one index"):
        frames[0, 1]


def test_threads_share_a_stream(folder):
    frames = decoded.frames(folder / "frames.mkv")
    whole = np.asarray(frames)
    numbers = np.random.default_rng(1).integers(0, COUNT, 60)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for i, picture in zip(numbers, pool.map(frames.__getitem__, numbers), strict=True):
            np.testing.assert_array_equal(picture, whole[i])


def test_smaller_pictures_are_those_of_opencv(folder):
    frames = decoded.arrays(folder)["frames"]
    small = decoded.resized(frames, (23, 17), cv2.INTER_AREA)
    assert small.shape == (COUNT, 17, 23, 3)
    expected = cv2.resize(frames[4], (23, 17), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(small[4], expected)


def test_memory_keeps_what_there_is_room_for():
    made = []

    def make(number):
        made.append(number)
        return np.full((2, 2), number, np.uint8)

    memory = decoded.Memory(2 * 4 + 3)  # two pictures of four bytes
    kept = memory.keeping(decoded.Decoded(make, (9, 2, 2)))
    for _ in range(2):
        assert [int(kept[i][0, 0]) for i in (5, 1, 7)] == [5, 1, 7]
    assert made == [5, 1, 7, 7]
    other = memory.keeping(decoded.Decoded(make, (9, 2, 2)))  # shares the room, not the pictures
    other[5], other[5]
    assert made[4:] == [5, 5]


def test_a_stream_that_is_damaged_is_one_line(folder, tmp_path):
    for name in ("labels.mkv", "torso.mkv"):
        copy = tmp_path / name
        copy.mkdir()
        for stream in streams.STREAMS:
            data = (folder / stream).read_bytes()
            if stream == name:
                data = b"no video" if name == "labels.mkv" else data[: len(data) * 2 // 3]
            (copy / stream).write_bytes(data)
        with pytest.raises(
            (processed.DatasetError, streams.StreamError), match="is damaged"
        ) as error:
            list(processed.open_pictures(copy)["torso"])
        assert name in str(error.value) and "make it again" in str(error.value)
    with pytest.raises(processed.DatasetError, match=r"frames\.mkv is missing"):
        processed.open_pictures(tmp_path)


def test_a_folder_of_streams_and_one_of_arrays_are_read_alike(folder, tmp_path):
    """Of the painted clip: what training is given, small and whole, kept in memory or not."""
    plain, coded = tmp_path / "plain", tmp_path / "coded"
    painted.paint(plain)
    clip = processed.load_clip(plain)
    for path in plain.iterdir():
        if path.stem not in format.ARRAYS:
            (coded / path.name).parent.mkdir(exist_ok=True)
            (coded / path.name).write_bytes(path.read_bytes())
    streams.write(coded, zip(clip.frames, clip.labels, clip.torso, strict=True))
    index = np.array([[3, 0], [9, 3]])
    for max_side in (0, 20):
        old, new = (processed.load_clip(path, max_side) for path in (plain, coded))
        assert old.frames.shape == new.frames.shape
        read = batches.read_pictures(new, index)
        np.testing.assert_array_equal(read.labels, batches.read_pictures(old, index).labels)
        kept = new.kept(1 << 20)
        for _ in range(2):
            for a, b in zip(read, batches.read_pictures(kept, index), strict=True):
                np.testing.assert_array_equal(a, b)
        assert batches.read_pictures(new, index, with_torso=False).torso is None
