"""What the system refuses is one line: what was found, what was expected, what to do."""

import errno
import os
import re

import pytest

from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import faults


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, "the disk is full: there was no room to write out/avatar.npz; free some"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "avatar.npz would be larger than the system allows.*ulimit"),
        (errno.EROFS, "avatar.npz is on a read-only file system; expected"),
        (errno.EACCES, "no permission for out/avatar.npz; expected"),
        (errno.EISDIR, "avatar.npz is a folder; expected a file"),
    ],
)
def test_errors_of_the_system_have_a_way_out(number, words, capsys):
    def work():
        raise OSError(number, os.strerror(number), "out/.avatar.0123abcd-77.part.npz")

    assert faults.run("train", work) == 1
    line = capsys.readouterr().err
    assert line.startswith("train: ") and line.count("\n") == 1
    assert ".part" not in line and re.search(words, line), line


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError) as caught:
        (tmp_path / "run" / "samples").mkdir(parents=True)
    assert faults.describe(caught.value).startswith(
        f"{tmp_path / 'run'} is a file; expected a fold"
    )


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError("4096 requested and 20 written"), "the disk is full"),  # NumPy's
        (OSError("the disk has 1 GB free: free some"), "the disk has 1 GB free: free some"),
        (ValueError("found\nthis"), "found this"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            "there is not enough memory .Unable to allocate 9 TiB.",
        ),
    ],
)
def test_other_errors_of_a_user(error, words):
    assert re.match(words, faults.describe(error))


def test_a_fault_of_the_program_keeps_its_traceback():
    def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        faults.run("train", work)


def test_a_lack_of_memory_on_the_device_is_told():
    kind = type("XlaRuntimeError", (RuntimeError,), {})
    error = kind("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
    assert "not enough memory (Out of memory allocating 99 bytes)" in faults.describe(error)
    assert faults.describe(kind("INTERNAL: no")) is None


class FFmpegError(Exception):
    """As PyAV's: it has a number, but is no OSError."""

    errno, strerror, filename = errno.ENOSPC, "No space left on device", None


@pytest.mark.parametrize("error", [FFmpegError(), OSError(errno.ENOSPC, "No space left")])
def test_whole_names_the_file_whatever_library_failed(error, tmp_path):
    with pytest.raises(OSError) as caught, whole(tmp_path / "talk.mp4") as part:
        part.write_text("x")
        raise error
    assert caught.value.errno == errno.ENOSPC and str(tmp_path / "talk.mp4") in str(caught.value)
    assert list(tmp_path.iterdir()) == []
