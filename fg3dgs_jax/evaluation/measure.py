"""One pass over a split: each frame is drawn once, measured, and passed on to the video."""

import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.avatar.subject import Subject
from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.evaluation import metrics, report
from fg3dgs_jax.evaluation.pretrained import Networks
from fg3dgs_jax.evaluation.watcher import Watcher
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import openings as openings_lib
from fg3dgs_jax.media import video

# Frames that are drawn before the clock starts, and at most that are timed.
WARM_UP, TIMED = 20, 200
# Share of frames with a face in truth and render, from which landmark openings are trusted.
DETECTED = 0.8
# Middle of the upper and lower inner lip in the face mesh.
UPPER_LIP, LOWER_LIP = 13, 14
# Measures that the best still image has too.
STILL = ("psnr", "ssim", "lpips", "lmd", "lips_psnr", "eyes_psnr")
MEANS = (*STILL, "lmd_fan", *(f"still_{name}" for name in STILL))


class Measurer:
    """Measures frames as they are drawn.

    Attributes:
      rows: one dict of figures per frame.
      sheet: (title, panels) of each column of the contact sheet.
    """

    def __init__(
        self,
        subject: Subject,
        index: np.ndarray,
        networks: Networks,
        rendered: np.ndarray | None = None,
    ):
        """Prepares what all frames share: boxes, colours of the mouth, the best still image.

        Args:
          subject: the avatar and its clip.
          index: int [n], the consecutive frames to measure.
          networks: the pretrained networks, or why they are missing.
          rendered: uint8 [n, H, W, 3], is filled with the drawn frames.
        """
        clip, train = subject.clip, subject.clip.split("train")
        self.subject, self.index, self.networks = subject, index, networks
        self.rendered = rendered
        self.lips, self.eyes = clip.lips_boxes(), clip.eyes_boxes()
        self.steady = openings_lib.steady_boxes(self.lips, clip.height, clip.width)
        some = openings_lib.some_of(train)
        self.colours = openings_lib.fit_mouth_colours(
            clip.frames[some], clip.labels[some], self.steady[some]
        )
        self.still = metrics.best_still_image(clip.frames[i] for i in train)
        mesh = networks.mesh.call
        self.still_points = mesh(play.to_uint8(self.still)) if mesh else None
        names = clip.expression_names
        blinks = clip.expression[index, names.index("AU45")] if "AU45" in names else None
        self.chosen = report.choose_frames(clip.mouth_openings()[index], blinks)
        self.rows: list[dict] = []
        self.sheet: list[tuple[str, list[np.ndarray]]] = []

    def panels(self, watchers: Sequence[Watcher] = ()) -> Iterator[np.ndarray]:
        """Draws and measures every frame; yields its row of the comparison video, uint8.

        Args:
          watchers: further measures, which take in every frame.
        """
        drawn = self.subject.draw(self.index)
        for position, (i, frame) in enumerate(zip(self.index, drawn, strict=True)):
            truth = self.subject.clip.frames[i].astype(np.float32) / 255.0
            self.rows.append(self.measure(i, truth, frame.image))
            if self.rendered is not None:
                self.rendered[position] = play.to_uint8(frame.image)
            pictures = report.panels(truth, frame)
            if position in self.chosen:
                self.sheet.append((f"{i} {self.chosen[position]}", pictures))
            for watcher in watchers:
                watcher.add(truth, frame.image)
            yield report.comparison_row(pictures)

    def measure(self, i: int, truth: np.ndarray, image: np.ndarray) -> dict:
        """Returns all figures of one frame; None where something could not be measured.

        Args:
          i: its number in the clip.
          truth: float [H, W, 3] in [0, 1].
          image: the drawn frame, likewise.
        """
        # Detectors get what a viewer sees: eight bits.
        pair = (self.subject.clip.frames[i], play.to_uint8(image))
        lpips, mesh = self.networks.lpips.call, self.networks.mesh.call
        points: list[Any] = [mesh(picture) if mesh else None for picture in pair]
        faces = all(p is not None for p in points)
        openings = [
            openings_lib.mouth_opening(p, self.steady[i], self.colours) if self.colours else None
            for p in (truth, image, self.still)
        ]
        gaps = [lip_gap(p) if faces else None for p in points]
        landmarks = self.subject.clip.landmarks[i] if self.subject.clip.landmarks_valid[i] else None
        places = self.lips[i], self.eyes[i]
        return {
            "frame": int(i),
            **compare_frames((truth, image), points, places, lpips),
            "lmd_fan": lmd_fan(self.networks.fan, pair, landmarks),
            **self.measure_still(i, truth, points[0]),
            "opening_pixels_truth": openings[0],
            "opening_pixels_render": openings[1],
            "opening_pixels_still": openings[2],
            "opening_px_truth": gaps[0],
            "opening_px_render": gaps[1],
        }

    def measure_still(self, i: int, truth: np.ndarray, points: np.ndarray | None) -> dict:
        """Returns the same figures of the best still image.

        Args:
          i: number of the frame in the clip.
          truth: float [H, W, 3] in [0, 1].
          points: landmarks of the true frame, None where no face was found.
        """
        lpips = self.networks.lpips.call
        lmd = None
        if points is not None and self.still_points is not None:
            lmd = metrics.lmd(points, self.still_points)
        return {
            "still_psnr": metrics.psnr(truth, self.still),
            "still_ssim": metrics.ssim(truth, self.still),
            "still_lpips": lpips(truth, self.still) if lpips else None,
            "still_lmd": lmd,
            "still_lips_psnr": metrics.box_psnr(truth, self.still, self.lips[i]),
            "still_eyes_psnr": metrics.boxes_psnr(truth, self.still, self.eyes[i]),
        }

    def column(self, name: str) -> np.ndarray:
        """Returns one measure of all frames, float64 [n], NaN where it is unknown."""
        return np.array(
            [np.nan if row[name] is None else row[name] for row in self.rows], np.float64
        )

    def openings(self) -> tuple[str | None, np.ndarray | None, np.ndarray | None]:
        """Returns (kind, truth [n], render [n]): how far the mouth is open.

        The curves come from landmarks where faces are found nearly everywhere, else from pixels.
        """
        truth, render = self.column("opening_px_truth"), self.column("opening_px_render")
        if np.isfinite(truth).mean() >= DETECTED:
            return "landmarks", truth, render
        if self.colours is None:
            return None, None, None
        return "pixels", self.column("opening_pixels_truth"), self.column("opening_pixels_render")

    def summary(self) -> dict:
        """Returns the figures of the whole split."""
        means = {n: metrics.mean_or_none([r[n] for r in self.rows]) for n in MEANS}
        kind, truth, render = self.openings()
        out = {
            **means,
            "opening_correlation": None,
            "opening_correlation_kind": kind,
            "opening_correlation_pixels": None,
            "still_opening_correlation": None,
            "envelope_correlation": None,
            "envelope_correlation_shifted": None,
            "envelope_lag": None,
            "truth_envelope_correlation": None,
        }
        if self.colours is not None:
            pixels = self.column("opening_pixels_truth")
            for name, other in (
                ("opening_correlation_pixels", "opening_pixels_render"),
                ("still_opening_correlation", "opening_pixels_still"),
            ):
                out[name] = openings_lib.correlation(pixels, self.column(other))
        if truth is not None and render is not None:
            truth, render = fill_gaps(truth), fill_gaps(render)
            samples = self.subject.sound(self.index)
            out["opening_correlation"] = openings_lib.correlation(truth, render)
            out |= openings_lib.check(render, samples)
            of_truth = openings_lib.check(truth, samples)
            out["truth_envelope_correlation"] = of_truth["envelope_correlation"]
        return out

    def curves(self) -> dict[str, np.ndarray]:
        """Returns the curves [n] that `opening.png` shows."""
        sound = self.subject.sound(self.index)
        out = {"audio envelope": openings_lib.envelope(sound, len(self.rows))}
        kind, truth, render = self.openings()
        if truth is not None and render is not None:
            out[f"true mouth opening ({kind})"] = truth
            out[f"rendered mouth opening ({kind})"] = render
        return out | {"PSNR, dB": self.column("psnr")}


def compare_frames(
    pair: tuple[np.ndarray, np.ndarray],
    points: Sequence[np.ndarray | None],
    places: tuple[np.ndarray, np.ndarray] | None,
    lpips: Callable[[np.ndarray, np.ndarray], float | None] | None,
) -> dict[str, float | None]:
    """Returns the figures that two pictures have together; None where one is not known.

    Args:
      pair: truth and render, float [H, W, 3] in [0, 1].
      points: face meshes [478, 2] px of both, None where no face was found.
      places: box [4] of the lips and boxes [2, 4] of the eyes; None without a face.
      lpips: see `pretrained.load_lpips`.
    """
    known = [p for p in points if p is not None]
    return {
        "psnr": metrics.psnr(*pair),
        "ssim": metrics.ssim(*pair),
        "lpips": lpips(*pair) if lpips else None,
        "lmd": metrics.lmd(*known) if len(known) == len(pair) else None,
        "lips_psnr": None if places is None else metrics.box_psnr(*pair, places[0]),
        "eyes_psnr": None if places is None else metrics.boxes_psnr(*pair, places[1]),
    }


def lmd_fan(
    fan: OptionalNetwork, pair: Sequence[np.ndarray], landmarks: np.ndarray | None
) -> float | None:
    """Returns the LMD of two pictures with FAN's landmarks.

    It is None where FAN finds no face in one of the two.

    Args:
      fan: see `pretrained.load_fan`.
      pair: truth and render, uint8 [H, W, 3].
      landmarks: face mesh [478, 2] px of the truth, whose box FAN may need; None without a face.
    """
    if fan.call is None:
        return None
    box = None if landmarks is None else face_boxes.mesh_boxes(landmarks[None])[0]
    points = [fan.call(picture, box) for picture in pair]
    return metrics.lmd(*points) if all(p is not None for p in points) else None


def lip_gap(points: np.ndarray) -> float:
    """Returns the distance between the inner lips, px; points: face mesh [478, 2]."""
    return float(np.linalg.norm(points[LOWER_LIP] - points[UPPER_LIP]))


def fill_gaps(curve: np.ndarray) -> np.ndarray:
    """Returns a curve [n] with linear interpolation in place of NaNs."""
    good = np.isfinite(curve)
    return np.interp(np.arange(len(curve)), np.flatnonzero(good), curve[good])


def frames_per_second(subject: Subject, index: np.ndarray) -> tuple[float, float]:
    """Returns (frames/s, median latency in s) of drawing one frame at a time.

    The inputs are on the device, the first `WARM_UP` frames are not timed, and every frame is
    waited for.
    """
    index = np.asarray(index)[:TIMED]
    ready = [
        jax.device_put(play.inputs(subject.clip, subject.drive(index[k : k + 1])))
        for k in range(len(index))
    ]
    for k in range(WARM_UP):
        jax.block_until_ready(subject.avatar.draw(*ready[k % len(ready)]))
    latencies = []
    for arguments in ready:
        start = time.perf_counter()
        jax.block_until_ready(subject.avatar.draw(*arguments))
        latencies.append(time.perf_counter() - start)
    return len(latencies) / sum(latencies), float(np.median(latencies))


def measure_mp4(
    subject: Subject, index: np.ndarray, out: pathlib.Path, lpips: OptionalNetwork
) -> dict:
    """Returns PSNR, SSIM and LPIPS after truth and render went through H.264, as in papers.

    Args:
      subject: the avatar and its clip.
      index: int [n], the consecutive frames to measure.
      out: folder, `truth.mp4` and `render.mp4` are left in it.
      lpips: see `pretrained.load_lpips`.
    """
    sound = subject.sound(index)
    truth, render = out / "truth.mp4", out / "render.mp4"
    video.write_video(truth, (subject.clip.frames[i] for i in index), sound)
    video.write_video(render, (play.to_uint8(f.image) for f in subject.draw(index)), sound)
    rows = []
    pairs = zip(*(video.read_video(p, min_frames=1).frames() for p in (truth, render)), strict=True)
    for pair in pairs:
        a, b = (picture.astype(np.float32) / 255.0 for picture in pair)
        distance = lpips.call(a, b) if lpips.call else None
        rows.append((metrics.psnr(a, b), metrics.ssim(a, b), distance))
    columns = zip(("psnr", "ssim", "lpips"), zip(*rows, strict=True), strict=True)
    return {name: metrics.mean_or_none(values) for name, values in columns}


def train_seconds(workdir: os.PathLike[str] | str) -> float | None:
    """Returns the seconds of training, or None where nothing in the workdir states them.

    They stand in `train.json`, else in the last line of `metrics.jsonl` that has them.
    """
    summary, log = (pathlib.Path(workdir) / name for name in ("train.json", "metrics.jsonl"))
    if summary.exists():
        seconds = json.loads(summary.read_text()).get("train_seconds")
        if seconds is not None:
            return float(seconds)
    if log.exists():
        for line in reversed(log.read_text().splitlines()):
            if '"train_seconds"' in line:
                return float(json.loads(line)["train_seconds"])
    return None
