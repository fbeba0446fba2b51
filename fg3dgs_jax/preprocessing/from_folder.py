"""Another project's folder -> a processed folder: the order of the steps, which resume as usual.

Frames, poses, labels, torso, plate, sound and whatever features and action units are there come
from the folder (`preprocessing/foreign/layout.py`). The 478 landmarks and the blendshapes, which no
such folder has, come from the face landmarker.
"""

import pathlib

import numpy as np
from tqdm import tqdm

from fg3dgs_jax.clip import format, over_time
from fg3dgs_jax.clip.memory_map import releasing, stream
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing import steps as steps_lib
from fg3dgs_jax.preprocessing.express import openface
from fg3dgs_jax.preprocessing.foreign import labels as labels_lib
from fg3dgs_jax.preprocessing.foreign import layout, poses
from fg3dgs_jax.preprocessing.report import page
from fg3dgs_jax.preprocessing.resume import Folder
from fg3dgs_jax.weights import files, store

VERSION = 1  # of the steps' results: another number makes imported folders be done again
MAX_UNKNOWN = 0.01  # of a parsing picture: more pixels of no known colour are worth a word
MAX_SILENCE = 0.1  # s that sound and pictures may differ in length without a word


def import_folder(path, out, consent, features=None, expression=None, emotion=None) -> pathlib.Path:
    """Makes the processed folder `out` of another project's folder; returns the report's path.

    Args:
      consent: (kind, meaning).
      features: names of audio extractors to run besides those whose files are there, or None.
      expression: CSV of OpenFace in place of the folder's `au.csv`.
      emotion: "fer", "emotieff", "none"; None takes fer where its weights are.

    Raises:
      ValueError: files that are missing, all of them named, or of no use; one line.
      OSError: nothing can be written, the disk is full; one line.
    """
    source = layout.open_source(path, _missing_weights())
    models = {"face_landmarker": store.require("face_landmarker")}
    emotion, found, network = steps.emotion_network(emotion)
    models |= found
    wanted = [n for n in steps.extractors(features) if n not in source.features]
    expression = expression or source.action_units
    units = openface.channels(expression, source.num_frames) if expression else None
    folder = Folder(out, {"version": VERSION, "imported": source.digest})
    size = (source.height, source.width)
    with folder.at_work():
        pixels = (source.num_frames, *size)
        folder.make_room({"frames": (*pixels, 3), "labels": pixels, "torso": (*pixels, 4)})
        defects = [*source.defects, *read(folder, source)]
        track = steps.faces(folder, models["face_landmarker"])
        fit = pose(folder, source, track)
        origin = {"emotion": emotion, **steps.origin(expression, units)}
        steps.expression(folder, track, network, units, origin)
        defects += layers(folder, source)
        imported_features(folder, source)
        used = steps.sound(folder, wanted, source.num_frames)
        splits, kept = split_facts(source)
        if not kept:
            defects.append(
                f"the split is not theirs (train {splits['train']}, val {splits['val']}) but the "
                "first 10/11 of the frames and the rest"
            )
        imported = {
            "layout": layout.LAYOUT,
            "frames": source.pictures,
            "features": sorted(source.features),
            "metres_per_unit": fit["scale"],
            "origin": fit["origin"],
            "split": splits,
            "split_kept": kept,
            "defects": defects,
        }
        facts = {
            "source": source.path.name,
            "imported from": f"the layout of {layout.LAYOUT}",
            "metres per unit of its poses": f"{fit['scale']:.4g}",
            "audio features": ", ".join((*sorted(source.features), *wanted)),
            "consent": ": ".join(consent),
        }
        late = steps_lib.lateness(folder, track)
        report = page.write(folder.path, facts, late, defects, seconds=folder.seconds)
        format.save_meta(
            folder.path,
            num_frames=source.num_frames,
            width=source.width,
            height=source.height,
            intrinsics=(source.intrinsics[0], *source.intrinsics),
            source={
                "file": source.path.name,
                "sha256": source.digest,
                "seconds": source.num_frames / clock.FPS,
            },
            expression=origin,
            weights={n: files.digest(store.require(n)) for n in (*models, *used)},
            consent=dict(zip(("kind", "meaning"), consent, strict=True)),
            parser="imported",
            imported=imported,
        )
    for defect in defects:
        print(f"put right: {defect}")
    return report


def _missing_weights():
    try:
        store.require("face_landmarker")
    except store.WeightsMissing as error:
        return [f"the face landmarker, which finds the 478 landmarks [{error}]"]
    return []


def read(folder, source):
    """Frames and sound; returns what is odd about the sound."""
    if not folder.has("read", ("frames.npy", "audio.wav", "odd.json")):
        frames = folder.array("frames", (source.num_frames, source.height, source.width, 3))
        numbers = tqdm(range(source.num_frames), "frames", unit="frame")
        for i in releasing(numbers, frames):
            frames[i] = source.frame(i)
        folder.keep("frames", frames)
        samples = video.read_audio(source.sound)
        length = source.num_frames * clock.SAMPLE_RATE // clock.FPS
        late = (len(samples) - length) / clock.SAMPLE_RATE
        odd = []
        if abs(late) > MAX_SILENCE:
            fate = "its end cut" if late > 0 else "silence put at its end"
            odd = [f"{source.sound.name} is {late:+.2f} s longer than the pictures: {fate}"]
        samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
        video.write_wav(folder.path / "audio.wav", samples)
        folder.save("odd", odd)
        folder.finish("read")
    return folder.load("odd")


def pose(folder, source, track):
    """Cameras and landmarks; returns the scale (m per unit) and origin that the poses got."""
    if not folder.has("pose", ("camera.npz", "landmarks.npz", "gauge.json")):
        fit = poses.track(
            source.poses, source.num_frames, source.intrinsics, track.pixels, track.valid,
            source.height,
        )  # fmt: skip
        format.save_arrays(
            folder.path,
            camera={
                "world_to_camera": fit.world_to_camera, "valid": fit.valid, "error": fit.error,
                "focal": np.float64(source.intrinsics[0]), "head_points": fit.points,
            },
            landmarks={"pixels": over_time.bridge(track.pixels, track.valid), "valid": track.valid},
        )  # fmt: skip
        folder.save("gauge", {"scale": fit.scale, "origin": fit.origin.tolist()})
        folder.finish("pose")
    return folder.load("gauge")


def layers(folder, source):
    """Labels, plate and torso; returns what is odd about the parsing pictures."""
    outputs = ("labels.npy", "torso.npy", "background.png", "unknown.json")
    if not folder.has("layers", outputs):
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        with np.load(folder.path / "landmarks.npz") as fields:
            points = over_time.smooth(fields["pixels"])
        labels = folder.array("labels", frames.shape[:3])
        torso = folder.array("torso", (*frames.shape[:3], 4))
        unknown = []
        bar = tqdm(stream(frames), "labels and torso", len(frames), unit="frame")
        for i, frame in enumerate(releasing(bar, labels, torso)):
            found, share = labels_lib.classes(source.parsing(i))
            labels[i] = labels_lib.labels_of(frame, points[i], found, source.teeth_mask(i))
            torso[i] = source.torso(i)
            if share > MAX_UNKNOWN:
                unknown.append(i)
        format.save_arrays(folder.path, background=source.plate())
        folder.keep("labels", labels)
        folder.keep("torso", torso)
        folder.save("unknown", unknown)
        folder.finish("layers")
    unknown = folder.load("unknown")
    if not unknown:
        return []
    return [
        f"{len(unknown)} pictures of parsing have more than {MAX_UNKNOWN:.0%} of their pixels in "
        f"none of the six colours, {unknown[0]}.png for one: taken for background"
    ]


def imported_features(folder, source):
    """The audio features that the folder has, under our names."""
    for name in source.features:
        if not folder.has(name, (f"audio_{name}.npy",)):
            format.save_arrays(folder.path, **{f"audio_{name}": source.feature_rows(name)})
            folder.finish(name)


def split_facts(source):
    """Their split as [first, last + 1] of each part, and whether ours puts every frame alike."""
    spans = {s: [ids[0], ids[-1] + 1] if ids else [] for s, ids in source.splits.items()}
    cut = format.train_frames(source.num_frames)
    train, val = (source.splits[s] for s in ("train", "val"))
    return spans, all(i < cut for i in train) and all(i >= cut for i in val)
