"""Measures a trained avatar on frames it was not trained on, and writes the report."""

import json
import os
import pathlib
from collections.abc import Mapping

import jax

from fg3dgs_jax.avatar import store
from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.evaluation import lse, measure, own_sync, perception, pretrained, report, temporal
from fg3dgs_jax.evaluation.highlights import Highlights
from fg3dgs_jax.evaluation.measure import Measurer
from fg3dgs_jax.evaluation.watcher import Measure
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.media import clock, plots, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole

PICTURES = (
    ("Frames", "contact_sheet.png", "truth, render, layers and error of eight frames"),
    (
        "Frame by frame",
        "moments.png",
        "truth above render around a blink, a wide mouth, a closed mouth",
    ),
    ("Sound and mouth", "opening.png", "audio envelope, true and rendered opening"),
)


def evaluate(
    workdir: os.PathLike[str] | str,
    *,
    split: str = "test",
    out: os.PathLike[str] | str | None = None,
    data: os.PathLike[str] | str | None = None,
    on_mp4: bool = False,
    lpips_vgg: bool = False,
    sync_expert: os.PathLike[str] | str | None = None,
) -> dict:
    """Measures a trained avatar and writes metrics.json, a video, pictures and report.html.

    Args:
      workdir: folder of a training run.
      split: the frames to measure: test, train or all.
      out: folder for the results; by default WORKDIR/eval_SPLIT.
      data: the processed folder, or packed file, where it has moved since training.
      on_mp4: also measures after H.264, as papers do.
      lpips_vgg: also measures LPIPS with VGG-16, which takes seconds a frame on a CPU.
      sync_expert: a `sync_expert.npz`, also gives the score of this lip-sync expert.

    Returns:
      What metrics.json holds. A metric whose weights are not installed is None, with the reason in
      `weights`.

    Raises:
      ValueError: there is no trained avatar or clip, or the split has no frames.
    """
    out = result_folder(workdir, split, out)
    subject = open_subject(store.load(workdir), data)
    measures: dict[str, Measure] = {"fid": perception.load_fid()}
    if lpips_vgg:
        measures["lpips_vgg"] = perception.load_lpips_vgg()
    index = subject.clip.shot(split)
    if not len(index):
        raise ValueError(f"split {split!r} of {subject.clip.path} has no frames; use --split all")
    if sync_expert:
        measures["own_sync"] = own_sync.OwnSync(sync_expert, subject.clip, index, subject.samples)
    lpips, mesh = pretrained.load_lpips(), pretrained.load_landmarks()
    networks = pretrained.Networks(lpips, mesh, pretrained.load_fan(lse.load_faces("s3fd")))
    lip_sync = lse.load()
    out.mkdir(parents=True, exist_ok=True)
    # It is written last: where it stands, all other files do.
    (out / "metrics.json").unlink(missing_ok=True)

    size = subject.clip.height, subject.clip.width
    rendered = lse.recording(out, len(index), *size) if lip_sync.call else None
    try:
        measurer = Measurer(subject, index, networks, rendered)
        lips, eyes = measurer.lips[index], measurer.eyes[index]
        measures["temporal"] = temporal.TemporalEnergy(index, lips, eyes)
        highlights = Highlights(subject.clip, index)
        panels = measurer.panels([*measures.values(), highlights])
        bar = progress(panels, desc=f"evaluate {split}", total=len(index), unit="frame")
        video.write_video(out / "comparison.mp4", bar, subject.sound(index))
    finally:
        mesh.close()
    report.write_csv(out / "per_frame.csv", measurer.rows)
    plots.write_png(out / "contact_sheet.png", report.contact_sheet(measurer.sheet))
    plots.write_png(out / "moments.png", highlights.picture())
    plots.write_png(out / "opening.png", plots.plot_curves(measurer.curves(), clock.FPS))

    seconds = measure.train_seconds(workdir)
    result = {"split": split, **collect(measurer, measures, lip_sync, seconds)}
    if on_mp4:
        result["on_mp4"] = measure.measure_mp4(subject, index, out, lpips)
    report.write_html(out / "report.html", result, PICTURES)
    with whole(out / "metrics.json") as part:
        part.write_text(json.dumps(result, indent=2))
    return result


def result_folder(
    workdir: os.PathLike[str] | str, split: str, out: os.PathLike[str] | str | None
) -> pathlib.Path:
    """Returns the folder that `evaluate` writes into."""
    return pathlib.Path(out) if out else pathlib.Path(workdir) / f"eval_{split}"


def collect(
    measurer: Measurer,
    measures: Mapping[str, Measure],
    lip_sync: OptionalNetwork,
    train_seconds: float | None,
) -> dict:
    """Returns the figures for metrics.json, in their order.

    Args:
      measurer: has drawn all frames.
      measures: likewise.
      lip_sync: see `lse.load`.
      train_seconds: how long training took, where that is known.
    """
    subject, index = measurer.subject, measurer.index
    networks, rows = measurer.networks, measurer.rows
    fps, latency = measure.frames_per_second(subject, index)
    figures = measurer.summary()
    sync, sync_source = measure_lse(lip_sync, measurer)
    results = {name: one.result() for name, one in measures.items()}
    return {
        "frames": len(index),
        **{name: figures.pop(name) for name in ("psnr", "ssim", "lpips")},
        **{name: value for name, (value, _) in results.items()},
        "lmd": figures.pop("lmd"),
        "lse_c": sync.pop("lse_c"),
        "lse_d": sync.pop("lse_d"),
        "train_seconds": train_seconds,
        "fps": fps,
        "weights": {
            "lpips": networks.lpips.source,
            "lmd": networks.mesh.source,
            "lmd_fan": networks.fan.source,
            **dict.fromkeys(lse.NAMES, sync_source),
            **{name: source for name, (_, source) in results.items()},
        },
        "per_frame": "per_frame.csv",
        **figures,
        **sync,
        "lmd_frames": sum(row["lmd"] is not None for row in rows),
        "lmd_fan_frames": sum(row["lmd_fan"] is not None for row in rows),
        "latency_ms": 1000.0 * latency,
        "device": jax.devices()[0].device_kind,
        "resolution": [subject.clip.height, subject.clip.width],
    }


def measure_lse(lip_sync: OptionalNetwork, measurer: Measurer) -> tuple[dict, str]:
    """Returns the result of `lse.measure` for the frames that `measurer` has drawn."""
    subject, index = measurer.subject, measurer.index
    clip, span = subject.clip, slice(index[0], index[-1] + 1)
    faces = lse.load_faces("s3fd_syncnet", "s3fd") if lip_sync.call else OptionalNetwork(None, "")
    landmarks = clip.landmarks[span] if clip.landmarks_valid[span].any() else None
    return lse.measure(
        lip_sync, faces, clip.frames[span], measurer.rendered, landmarks, subject.sound(index)
    )
