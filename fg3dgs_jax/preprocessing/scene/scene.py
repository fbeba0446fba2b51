"""The step that chooses the frames of a clip that are its person's, and tells of the others."""

from typing import Any

from fg3dgs_jax.clip import format
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing.scene import choice, looks
from fg3dgs_jax.preprocessing.step import Step


def choose_scene(job: Any) -> None:
    """Chooses the frames that show the person in the scene that is seen longest.

    Args:
      job: with `folder`, `frames` and `cuts`.

    Raises:
      PreprocessError: hardly a face, a second one, or no scene that is long enough.
    """
    frames, track = job.frames, face_landmarker.load_track(job.folder.path / "faces.npz")
    bar = progress(frames, desc="scene", unit="frame")
    seen = choice.Seen(
        looks.look(bar, track.pixels, track.valid), track.pixels, track.valid, job.cuts
    )
    spans = choice.choose(seen)
    own = format.own_frames(len(frames), spans)
    # Pictures of something else do not speak for or against the one who talks.
    room = format.own_frames(len(frames), [span for span in spans if span.why != "no face"])
    steps.check_length(own)
    steps.check_faces(track.num_faces[room])
    others = choice.others(spans, track.valid, job.cuts)
    job.folder.save("scene", {"left_out": [list(span) for span in spans], "others": others})


def print_scene(job: Any) -> None:
    """Says which frames are left out."""
    for line in job.scene_lines:
        print(line)


FILES = ("scene.json",)
STEPS = (
    Step("scene", choose_scene, needs=("frames.mkv", "faces.npz", "cuts.json"), makes=FILES),
    Step("left out", print_scene, needs=FILES, always=True),
)
