"""Measures a trained avatar on frames it was not trained on.

    python -m fg3dgs_jax.evaluate --workdir runs/obama

writes metrics.json, per_frame.csv, comparison.mp4, contact_sheet.png, moments.png, opening.png and
report.html.
"""

import argparse
import json
import pathlib
import sys

import jax
import tqdm

from fg3dgs_jax.avatar import subject as subject_lib
from fg3dgs_jax.evaluation import (
    lse,
    measure,
    moments,
    own_sync,
    perception,
    pretrained,
    report,
    temporal,
)
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.media import plots, video


def parse(argv):
    """Flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.evaluate",
        description="Measures a trained avatar; writes metrics.json and a report.",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="folder of a training run"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "train", "all"),
        help="frames to measure (default: test)",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder for the results (default: WORKDIR/eval_SPLIT)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="the processed folder, if it has moved since training"
    )
    parser.add_argument(
        "--on_mp4", action="store_true", help="also measure after H.264, as the field's tables do"
    )
    parser.add_argument(
        "--lpips_vgg",
        action="store_true",
        help="also LPIPS with VGG-16: seconds a frame on a CPU",
    )
    parser.add_argument(
        "--sync_expert",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="also the score of your own lip-sync expert (see: lipsync fit)",
    )
    return parser.parse_args(argv)


def evaluate(
    workdir, split="test", out=None, data=None, on_mp4=False, lpips_vgg=False, sync_expert=None
) -> dict:
    """Everything but the flags; returns what metrics.json holds."""
    out = pathlib.Path(out or workdir / f"eval_{split}")
    subject = subject_lib.open_subject(workdir, data)
    watchers = {"fid": perception.load_fid()}
    if lpips_vgg:
        watchers["lpips_vgg"] = perception.load_lpips_vgg()
    index = subject.clip.split(split)
    if not len(index):
        raise ValueError(f"split {split!r} of {subject.clip.path} has no frames; use --split all")
    if sync_expert:
        watchers["own_sync"] = own_sync.OwnSync(sync_expert, subject.clip, index, subject.samples)
    lpips, mesh = pretrained.load_lpips(), pretrained.load_landmarks()
    fan, lip_sync = pretrained.load_fan(lse.load_faces("s3fd")), lse.load()
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(
        missing_ok=True
    )  # it is written last: it says that the rest is there

    size = subject.clip.height, subject.clip.width
    rendered = lse.recording(out, len(index), *size) if lip_sync.call else None
    try:
        measurer = measure.Measurer(subject, index, lpips, mesh, fan, rendered)
        watchers["temporal"] = temporal.TemporalEnergy(
            index, measurer.lips[index], measurer.eyes[index]
        )
        close_up = moments.Moments(subject.clip, index)
        measurer.watchers = [*watchers.values(), close_up]
        rows = tqdm.tqdm(
            measurer.panels(), desc=f"evaluate {split}", total=len(index), unit="frame"
        )
        video.write_video(out / "comparison.mp4", rows, subject.sound(index))
    finally:
        mesh.close()
    report.write_csv(out / "per_frame.csv", measurer.rows)
    plots.write_png(out / "contact_sheet.png", report.contact_sheet(measurer.sheet))
    plots.write_png(out / "moments.png", close_up.picture())
    plots.write_png(out / "opening.png", plots.plot_curves(measurer.curves(), video.FPS))

    fps, latency = measure.frames_per_second(subject, index)
    figures, (sync, sync_source) = measurer.summary(), measure_lse(lip_sync, measurer)
    found = {name: watcher.result() for name, watcher in watchers.items()}
    result = {
        "split": split,
        "frames": len(index),
        **{name: figures.pop(name) for name in ("psnr", "ssim", "lpips")},
        **{name: value for name, (value, _) in found.items()},
        "lmd": figures.pop("lmd"),
        "lse_c": sync.pop("lse_c"),
        "lse_d": sync.pop("lse_d"),
        "train_seconds": measure.train_seconds(pathlib.Path(workdir)),
        "fps": fps,
        "weights": {
            "lpips": lpips.source,
            "lmd": mesh.source,
            "lmd_fan": fan.source,
            **dict.fromkeys(lse.NAMES, sync_source),
        },
        "per_frame": "per_frame.csv",
        **figures,
        **sync,
        "lmd_frames": sum(row["lmd"] is not None for row in measurer.rows),
        "lmd_fan_frames": sum(row["lmd_fan"] is not None for row in measurer.rows),
        "latency_ms": 1000.0 * latency,
        "device": jax.devices()[0].device_kind,
        "resolution": list(size),
    }
    result["weights"] |= {name: source for name, (_, source) in found.items()}
    if on_mp4:
        result["on_mp4"] = measure.measure_mp4(subject, index, out, lpips)
    report.write_html(out / "report.html", result)
    part = out / ".metrics.json.part"
    part.write_text(json.dumps(result, indent=2))
    part.replace(out / "metrics.json")
    return result


def measure_lse(lip_sync, measurer) -> tuple[dict, str]:
    """`lse.measure` of the frames that `measurer` has drawn."""
    subject, index = measurer.subject, measurer.index
    clip, span = subject.clip, slice(index[0], index[-1] + 1)
    faces = lse.load_faces("s3fd_syncnet", "s3fd") if lip_sync.call else OptionalNetwork(None, "")
    landmarks = clip.landmarks[span] if clip.landmarks_valid[span].any() else None
    return lse.measure(
        lip_sync, faces, clip.frames[span], measurer.rendered, landmarks, subject.sound(index)
    )


def main(argv=None) -> int:
    """Runs the program; 0 on success, 1 with one line on bad input."""
    flags = parse(argv)
    out = flags.out or flags.workdir / f"eval_{flags.split}"
    try:
        result = evaluate(
            flags.workdir,
            flags.split,
            out,
            flags.data,
            flags.on_mp4,
            flags.lpips_vgg,
            flags.sync_expert,
        )
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    for name, value, source in report.flatten(result):
        print(f"{name:44s} {value:>14s}  {source}")
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
