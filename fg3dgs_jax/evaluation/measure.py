"""One pass over a split: each frame drawn once, measured, and passed on to the comparison video."""

import json
import time

import jax
import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.avatar.subject import Subject
from fg3dgs_jax.clip import face_boxes
from fg3dgs_jax.evaluation import metrics, report
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import openings as openings_lib
from fg3dgs_jax.media import video

WARM_UP, TIMED = 20, 200  # frames
NO_FAN = OptionalNetwork(None, "FAN was not asked for")
DETECTED = (
    0.8  # share of frames with a face in truth and render from which landmark openings are trusted
)


class Measurer:
    """Measures frames as they come; `rows` holds one dict per frame, `sheet` the contact sheet's
    columns.
    """

    def __init__(
        self,
        subject: Subject,
        index,
        lpips: OptionalNetwork,
        mesh: OptionalNetwork,
        fan: OptionalNetwork = NO_FAN,
        rendered=None,
    ):
        """`rendered`, if given, is filled with the drawn frames, uint8 [len(index), H, W, 3]."""
        clip, train = subject.clip, subject.clip.split("train")
        self.subject, self.index, self.lpips, self.mesh = subject, index, lpips, mesh
        self.fan, self.rendered = fan, rendered
        self.mesh_boxes = face_boxes.mesh_boxes(clip.landmarks)
        self.lips, self.eyes = clip.lips_boxes(), clip.eyes_boxes()
        self.steady = openings_lib.steady_boxes(self.lips, clip.height, clip.width)
        self.colours = openings_lib.fit_mouth_colours(
            clip.frames[train], clip.labels[train], self.steady[train]
        )
        self.still = metrics.best_still_image(clip.frames[i] for i in train)
        self.still_points = mesh.call(play.to_uint8(self.still)) if mesh.call else None
        names = clip.expression_names
        blinks = clip.expression[index, names.index("AU45")] if "AU45" in names else None
        self.chosen = report.choose_frames(clip.mouth_openings()[index], blinks)
        self.rows, self.sheet = [], []
        self.watchers = []  # see `perception`: they are shown every frame

    def panels(self):
        """Draws and measures every frame; yields its row of the comparison video, uint8."""
        for position, (i, frame) in enumerate(
            zip(self.index, self.subject.draw(self.index), strict=True)
        ):
            true = self.subject.clip.frames[i]
            truth = true.astype(np.float32) / 255.0
            self.rows.append(self.measure(i, true, truth, frame.image))
            if self.rendered is not None:
                self.rendered[position] = play.to_uint8(frame.image)
            pictures = report.panels(truth, frame)
            if position in self.chosen:
                self.sheet.append((f"{i} {self.chosen[position]}", pictures))
            for watcher in self.watchers:
                watcher.add(truth, frame.image)
            yield report.comparison_row(pictures)

    def measure(self, i, true, truth, image) -> dict:
        """Everything about one frame; None where something could not be measured."""
        box, steady = self.lips[i], self.steady[i]
        seen = play.to_uint8(image)  # detectors see what a viewer sees: eight bits
        points = [self.mesh.call(p) if self.mesh.call else None for p in (true, seen)]
        faces = all(p is not None for p in points)
        openings = [
            openings_lib.mouth_opening(p, steady, self.colours) if self.colours else None
            for p in (truth, image, self.still)
        ]
        gaps = [float(np.linalg.norm(p[14] - p[13])) if faces else None for p in points]
        return {
            "frame": int(i),
            "psnr": metrics.psnr(truth, image),
            "ssim": metrics.ssim(truth, image),
            "lpips": self.lpips.call(truth, image) if self.lpips.call else None,
            "lmd": metrics.lmd(*points) if faces else None,
            "lmd_fan": self.lmd_fan(i, true, seen),
            "lips_psnr": metrics.box_psnr(truth, image, box),
            "eyes_psnr": metrics.boxes_psnr(truth, image, self.eyes[i]),
            **self.measure_still(i, truth, points[0]),
            "opening_pixels_truth": openings[0],
            "opening_pixels_render": openings[1],
            "opening_pixels_still": openings[2],
            "opening_px_truth": gaps[0],
            "opening_px_render": gaps[1],
        }

    def measure_still(self, i, truth, points) -> dict:
        """The same of the best still image; points: the true frame's landmarks or None."""
        faces = points is not None and self.still_points is not None
        return {
            "still_psnr": metrics.psnr(truth, self.still),
            "still_ssim": metrics.ssim(truth, self.still),
            "still_lpips": self.lpips.call(truth, self.still) if self.lpips.call else None,
            "still_lmd": metrics.lmd(points, self.still_points) if faces else None,
            "still_lips_psnr": metrics.box_psnr(truth, self.still, self.lips[i]),
            "still_eyes_psnr": metrics.boxes_psnr(truth, self.still, self.eyes[i]),
        }

    def lmd_fan(self, i, true, image) -> float | None:
        """LMD of one frame with FAN's landmarks; None where it found no face in one of the two."""
        if self.fan.call is None:
            return None
        box = self.mesh_boxes[i] if self.subject.clip.landmarks_valid[i] else None
        points = [self.fan.call(picture, box) for picture in (true, image)]
        return metrics.lmd(*points) if all(p is not None for p in points) else None

    def column(self, name) -> np.ndarray:
        """One measure over all frames, NaN where unknown."""
        return np.array(
            [np.nan if row[name] is None else row[name] for row in self.rows], np.float64
        )

    def openings(self):
        """(kind, truth [n], render [n]): from landmarks where faces are found nearly everywhere,
        else from pixels.
        """
        truth, render = self.column("opening_px_truth"), self.column("opening_px_render")
        if np.isfinite(truth).mean() >= DETECTED:
            return "landmarks", truth, render
        if self.colours is None:
            return None, None, None
        return "pixels", self.column("opening_pixels_truth"), self.column("opening_pixels_render")

    def summary(self) -> dict:
        """The metrics of the whole split."""
        means = {n: metrics.mean_or_none([r[n] for r in self.rows]) for n in MEANS}
        kind, truth, render = self.openings()
        out = {**means, "opening_correlation": None, "opening_correlation_kind": kind}
        pixels = {"opening_correlation_pixels": None, "still_opening_correlation": None}
        if self.colours is not None:
            seen = self.column("opening_pixels_truth")
            pixels["opening_correlation_pixels"] = openings_lib.correlation(
                seen, self.column("opening_pixels_render")
            )
            pixels["still_opening_correlation"] = openings_lib.correlation(
                seen, self.column("opening_pixels_still")
            )
        sound = dict.fromkeys(
            ("envelope_correlation", "envelope_correlation_shifted", "envelope_lag")
        )
        sound["truth_envelope_correlation"] = None
        if kind is not None:
            truth, render = fill_gaps(truth), fill_gaps(render)
            samples = self.subject.sound(self.index)
            out["opening_correlation"] = openings_lib.correlation(truth, render)
            sound.update(openings_lib.check(render, samples))
            sound["truth_envelope_correlation"] = openings_lib.check(truth, samples)[
                "envelope_correlation"
            ]
        return {**out, **pixels, **sound}

    def curves(self) -> dict:
        """What `opening.png` shows."""
        out = {
            "audio envelope": openings_lib.envelope(self.subject.sound(self.index), len(self.rows))
        }
        kind, truth, render = self.openings()
        if kind is not None:
            out |= {
                f"true mouth opening ({kind})": truth,
                f"rendered mouth opening ({kind})": render,
            }
        return out | {"PSNR, dB": self.column("psnr")}


STILL = ("psnr", "ssim", "lpips", "lmd", "lips_psnr", "eyes_psnr")
MEANS = (*STILL, "lmd_fan", *(f"still_{name}" for name in STILL))


def fill_gaps(curve) -> np.ndarray:
    """NaNs of a curve [n] replaced by linear interpolation."""
    good = np.isfinite(curve)
    return np.interp(np.arange(len(curve)), np.flatnonzero(good), curve[good])


def frames_per_second(subject: Subject, index) -> tuple[float, float]:
    """(frames/s, median latency s) of drawing one frame at a time from ready inputs, after
    `WARM_UP` frames, synchronised.
    """
    index = np.asarray(index)[:TIMED]
    ready = [
        jax.device_put(
            play.inputs(subject.clip, subject.features, subject.expression, i[None], i[None])
        )
        for i in index
    ]
    for k in range(WARM_UP):
        jax.block_until_ready(subject.avatar.draw(*ready[k % len(ready)]))
    latencies = []
    for arguments in ready:
        start = time.perf_counter()
        jax.block_until_ready(subject.avatar.draw(*arguments))
        latencies.append(time.perf_counter() - start)
    return len(latencies) / sum(latencies), float(np.median(latencies))


def measure_mp4(subject: Subject, index, out, lpips: OptionalNetwork) -> dict:
    """PSNR, SSIM and LPIPS after both truth and render went through H.264, as the field's tables
    have them.

    Leaves `truth.mp4` and `render.mp4` in `out`.
    """
    sound = subject.sound(index)
    truth, render = out / "truth.mp4", out / "render.mp4"
    video.write_video(truth, (subject.clip.frames[i] for i in index), sound)
    video.write_video(render, (play.to_uint8(f.image) for f in subject.draw(index)), sound)
    rows = []
    pairs = zip(*(video.read_video(p, min_frames=1).frames() for p in (truth, render)), strict=True)
    for a, b in pairs:
        a, b = a.astype(np.float32) / 255.0, b.astype(np.float32) / 255.0
        rows.append(
            (metrics.psnr(a, b), metrics.ssim(a, b), lpips.call(a, b) if lpips.call else None)
        )
    return {
        n: metrics.mean_or_none(v)
        for n, v in zip(("psnr", "ssim", "lpips"), zip(*rows, strict=True), strict=True)
    }


def train_seconds(workdir) -> float | None:
    """Seconds of training from the workdir's `train.json`, else the last line of `metrics.jsonl`
    that tells; None if none.
    """
    if (workdir / "train.json").exists():
        found = json.loads((workdir / "train.json").read_text()).get("train_seconds")
        if found is not None:
            return float(found)
    if (workdir / "metrics.jsonl").exists():
        for line in reversed((workdir / "metrics.jsonl").read_text().splitlines()):
            if '"train_seconds"' in line:
                return float(json.loads(line)["train_seconds"])
    return None
