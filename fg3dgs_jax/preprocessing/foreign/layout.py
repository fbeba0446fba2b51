"""What other projects' folders hold: the layout of AD-NeRF, ER-NeRF, TalkingGaussian and kin.

`open_source` looks through the folder and names at once every file that is missing. It lists what
is odd but can be put right (`Source.defects`). Nothing is written here.

| theirs | read as |
|---|---|
| `transforms_train.json`, `transforms_val.json` | focal length, and a pose for each frame |
| `ori_imgs/i.jpg`, or `gt_imgs/i.jpg` where those are not whole | frames |
| `parsing/i.png` | colours that stand for labels (`labels.py`) |
| `torso_imgs/i.png`, `bc.jpg` | torso layer, plate |
| `aud.wav`, or another wav or mp4 in the folder | sound |
| `aud_ds.npy`, `aud_eo.npy`, `aud_hu.npy`, or `aud.npy` by its shape | audio features, if there |
| `au.csv` | action units, if there |
| `teeth_mask/i.npy` | teeth, if there |
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from fg3dgs_jax.preprocessing.foreign.source import Source, SourceError, feature, numbered

LAYOUT = "AD-NeRF, ER-NeRF, TalkingGaussian"
TRANSFORMS = {"train": "transforms_train.json", "val": "transforms_val.json"}
# Their file -> our extractor; of each the windows' shape.
FEATURES = {"aud_ds.npy": "deepspeech", "aud_eo.npy": "wav2vec2", "aud_hu.npy": "hubert"}
WINDOWS = {"deepspeech": (16, 29), "wav2vec2": (16, 44), "hubert": (2, 1024)}
UNNAMED = "aud.npy"  # what DeepSpeech's script writes, and users must rename
MAX_ROWS_OFF = 2  # feature rows more or fewer than frames that are not reported


def open_source(path: os.PathLike | str, also_missing: Sequence[str] = ()) -> Source:
    """Looks through a folder.

    Args:
      path: the folder.
      also_missing: what the caller needs besides and lacks, to be named with the rest.

    Raises:
      SourceError: no such folder, files that are missing (all of them named) or unreadable.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise SourceError(f"{path} is not a folder; expected one in the layout of {LAYOUT}")
    missing = [name for name in (*TRANSFORMS.values(), "bc.jpg") if not (path / name).is_file()]
    tables = {
        split: _json(path / name) for split, name in TRANSFORMS.items() if name not in missing
    }
    listed = {i for table in tables.values() for i in (_id(f) for f in table["frames"])}
    whole = {name: _ids(path / name) for name in ("ori_imgs", "gt_imgs")}
    num_frames = 1 + max([-1, *listed, *whole["ori_imgs"], *whole["gt_imgs"]])
    every = set(range(num_frames))
    cut_out = whole["gt_imgs"] >= every and not whole["ori_imgs"] >= every
    pictures = "gt_imgs" if cut_out else "ori_imgs"
    needed = {f"{pictures}/%s.jpg": whole[pictures]}
    needed |= {f"{n}/%s.png": _ids(path / n, ".png") for n in ("parsing", "torso_imgs")}
    for name, numbers in needed.items():
        if not every:
            missing.append(name % "*")
        missing += [name % span for span in _spans(every - numbers)]
    sound = _sound(path)
    missing += [] if sound else ["aud.wav"]
    missing += also_missing
    if missing or sound is None:
        raise SourceError(
            f"{path} lacks {', '.join(missing)}; expected the layout of {LAYOUT}: run the steps of "
            "its preprocessing that make these, or give this program the video itself with --video"
        )
    defects = []
    poses, splits = _poses(path, tables, every, defects)
    features = _features(path, num_frames, defects)
    teeth = _ids(path / "teeth_mask", ".npy") & every
    if teeth and teeth < every:
        lacking = ", ".join(_spans(every - teeth))
        defects.append(f"no teeth_mask for frames {lacking}: their teeth are found by colour")
    if pictures == "gt_imgs":
        defects.append("ori_imgs is not whole: gt_imgs taken, whose background is the plate")
    first = numbered(path / pictures, 0)
    image = cv2.imread(str(first))
    if image is None:
        raise SourceError(f"{first} cannot be read as a picture; expected one: make it again")
    height, width = image.shape[:2]
    table = tables["train"]
    units = path / "au.csv"
    if not units.is_file():
        units = None
        defects.append("no au.csv: action units are the face landmarker's proxies")
    return Source(
        path=path,
        num_frames=num_frames,
        height=height,
        width=width,
        pictures=pictures,
        poses=poses,
        intrinsics=(
            float(table.get("focal_len", np.nan)),
            float(table.get("cx", width / 2)),
            float(table.get("cy", height / 2)),
        ),
        splits=splits,
        sound=sound,
        features=features,
        action_units=units,
        teeth=frozenset(teeth),
        defects=tuple(defects),
        digest=_fingerprint(path, pictures),
    )


def _poses(path, tables, every, defects):
    """Poses by frame, and the splits, put right where frames without landmarks were left out."""
    numbers = {split: [_id(f) for f in table["frames"]] for split, table in tables.items()}
    ids = sorted({i for split in numbers.values() for i in split})
    tracked = sorted(_ids(path / f, ".lms")) if (f := _landmark_folder(path)) else []
    renumber = {i: i for i in ids}
    # The tracker passes over frames without an .lms file and numbers the rest without gaps.
    if ids == list(range(len(ids))) and len(tracked) == len(ids) and tracked != ids:
        renumber = dict(zip(ids, tracked, strict=True))
        gaps = ", ".join(_spans(set(range(tracked[-1] + 1)) - set(tracked)))
        defects.append(
            f"poses were numbered without frames {gaps}, which have no .lms: put back in place"
        )
    poses, focal = {}, set()
    for split, table in tables.items():
        focal.add(float(table.get("focal_len", np.nan)))
        for frame in table["frames"]:
            matrix = np.asarray(frame.get("transform_matrix"), np.float64)
            if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
                raise SourceError(
                    f"{path / TRANSFORMS[split]} has no 4x4 transform_matrix for img_id "
                    f"{_id(frame)}; expected one of numbers for every frame"
                )
            poses[renumber[_id(frame)]] = matrix
    if len(focal) != 1 or not all(f > 0 for f in focal):
        raise SourceError(
            f"{path} has the focal lengths {sorted(focal)} in its transforms; expected one "
            "focal_len above 0, the same in both"
        )
    if lacking := every - set(poses):
        defects.append(f"no pose for frames {', '.join(_spans(lacking))}: interpolated and flagged")
    return poses, {s: tuple(sorted(renumber[i] for i in ids)) for s, ids in numbers.items()}


def _features(path, num_frames, defects):
    """Our extractor -> file."""
    files = {}
    names = dict(FEATURES)
    if (path / UNNAMED).is_file():
        shape = feature(path / UNNAMED).shape[1:]
        name = next((n for n, window in WINDOWS.items() if window == shape), None)
        if name is None:
            defects.append(f"{UNNAMED} has windows {shape}, of no known extractor: left out")
        elif not any((path / f).is_file() for f, n in FEATURES.items() if n == name):
            names[UNNAMED] = name
            defects.append(f"{UNNAMED} has the windows of {name} and is taken for them")
    for file, name in names.items():
        if not (path / file).is_file():
            continue
        rows = feature(path / file)
        if rows.shape[1:] != WINDOWS[name]:
            raise SourceError(
                f"{path / file} has shape {rows.shape}; expected [{num_frames}, "
                f"{', '.join(map(str, WINDOWS[name]))}], the windows of {name}"
            )
        files[name] = path / file
        if abs(len(rows) - num_frames) > MAX_ROWS_OFF:
            defects.append(
                f"{file} has {len(rows)} rows for {num_frames} frames: "
                + ("cut" if len(rows) > num_frames else "its last row repeated")
            )
    return files


def _json(path):
    try:
        table = json.loads(path.read_text())
        frames = [_id(frame) for frame in table["frames"]]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected JSON with frames, "
            "each with an img_id"
        ) from None
    if not frames or min(frames) < 0:
        raise SourceError(f"{path} lists {len(frames)} frames; expected img_ids from 0 on")
    return table


def _id(frame):
    return int(frame["img_id"])


def _ids(folder, *suffixes):
    """Numbers that files `N.suffix` in a folder bear."""
    suffixes = suffixes or (".jpg", ".png")
    if not folder.is_dir():
        return set()
    names = (p for p in folder.iterdir() if p.suffix in suffixes)
    return {int(p.stem) for p in names if p.stem.isdecimal()}


def _landmark_folder(path):
    return next((n for n in ("ori_imgs", "landmarks") if _ids(path / n, ".lms")), None)


def _spans(numbers):
    """{1, 2, 3, 7} -> ["1-3", "7"]."""
    ordered, spans = sorted(numbers), []
    for n in ordered:
        if spans and n == spans[-1][1] + 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    return [f"{a}-{b}" if b > a else f"{a}" for a, b in spans]


def _sound(path):
    """Where the sound is: the usual names first, then the only wav or mp4 there is."""
    names = ("aud.wav", "audio.wav", f"{path.name}.wav", f"{path.name}.mp4")
    if usual := [path / n for n in names if (path / n).is_file()]:
        return usual[0]
    others = [p for p in sorted(path.iterdir()) if p.suffix in (".wav", ".mp4")]
    return others[0] if len(others) == 1 else None


def _fingerprint(path, pictures):
    """Hex digest of names, sizes and times of what is read: another one means other input."""
    digest = hashlib.sha256()
    for folder in (".", pictures, "parsing", "torso_imgs", "teeth_mask"):
        for file in sorted((path / folder).glob("*")):
            if file.is_file():
                stat = file.stat()
                digest.update(f"{folder}/{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
