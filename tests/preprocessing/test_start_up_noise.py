"""MediaPipe logs about its start on file descriptor 2: that is dropped, and nothing else is."""

import os

import pytest

from fg3dgs_jax.experts.face import mediapipe_runtime

NOISE = (
    "WARNING: Logging before InitGoogle() is written to STDERR",
    "W0000 00:00:1.5   99 face_landmarker_graph.cc:181] Sets FaceBlendshapesGraph acceleration.",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "I0000 00:00:1.5   99 gl_context.cc:369] GL version: 3.2",
)
OURS = ("E0000 00:00:1.5   99 graph.cc:1] no such model", "error: the disk is full", "INFO: ours")


def test_only_the_start_up_noise_is_dropped(capfd):
    with mediapipe_runtime.start_up_noise_dropped():
        for line in (*NOISE, *OURS):
            os.write(2, f"{line}\n".encode())
        os.write(2, b"no end of line")
    os.write(2, b", and after it\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines == [*OURS, "no end of line, and after it"]


def test_an_exception_leaves_standard_error_as_it_was(capfd):
    with pytest.raises(RuntimeError), mediapipe_runtime.start_up_noise_dropped():
        os.write(2, f"{NOISE[0]}\n".encode())
        raise RuntimeError
    os.write(2, f"{NOISE[0]}\n".encode())
    assert capfd.readouterr().err == f"{NOISE[0]}\n"
