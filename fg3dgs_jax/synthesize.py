"""Makes a trained avatar speak any sound.

    python -m fg3dgs_jax.synthesize --workdir runs/obama --audio speech.wav --out talk.mp4

Head poses, torso, background, blinks and gaze come from the training clip, played forth and back;
the mouth from the sound.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
import tqdm

from fg3dgs_jax.avatar import play
from fg3dgs_jax.lipsync import openings
from fg3dgs_jax.media import loudness, video, windows


def parse(argv):
    """Flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.synthesize",
        description="Makes a trained avatar speak any sound: H.264 + AAC at 25 fps.",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="folder of a training run"
    )
    parser.add_argument(
        "--audio", required=True, type=pathlib.Path, help="any audio or video file, of any length"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=pathlib.Path,
        help="the mp4 to write; its folder is made if need be",
    )
    parser.add_argument(
        "--split",
        default="train",
        choices=("train", "test", "all"),
        help="frames that lend the poses (default: train)",
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="the processed folder, if it has moved since training"
    )
    parser.add_argument(
        "--crf", type=int, default=18, help="x264 quality, 0 (lossless) to 51 (default: 18)"
    )
    parser.add_argument(
        "--check", action="store_true", help="also print how well the mouth follows the sound"
    )
    flags = parser.parse_args(argv)
    if not 0 <= flags.crf <= 51:
        parser.error(f"--crf is {flags.crf}; expected 0 (lossless) to 51")
    return flags


class Meter:
    """Passes frames through and keeps how far each mouth was open."""

    def __init__(self, clip, pose_index):
        train = clip.split("train")
        boxes = openings.steady_boxes(clip.lips_boxes(), clip.height, clip.width)
        self.colours = openings.fit_mouth_colours(
            clip.frames[train], clip.labels[train], boxes[train]
        )
        self.boxes, self.openings = boxes[pose_index], []

    def watch(self, frames):
        """Yields the frames [H, W, 3] unchanged."""
        for frame in frames:
            if self.colours is not None:
                self.openings.append(
                    openings.mouth_opening(frame, self.boxes[len(self.openings)], self.colours)
                )
            yield frame

    def verdict(self, samples) -> str:
        """One line about the mouth and the sound."""
        found = (
            openings.check(self.openings, samples)
            if self.openings
            else {"envelope_correlation": None}
        )
        if found["envelope_correlation"] is None:
            return (
                "mouth opening against sound: not measurable (the mouth or the sound never changes)"
            )
        shifted = found["envelope_correlation_shifted"]
        beside = (
            f"; with the sound shifted: mean {shifted['mean']:.3f}, max {shifted['max']:.3f}"
            if shifted
            else ""
        )
        return (
            f"correlation of mouth opening and sound: {found['envelope_correlation']:.3f}{beside}"
        )


def synthesize(
    workdir, audio, out, split="train", data=None, crf=18, check=False
) -> tuple[int, float]:
    """Everything but the flags; returns (frames, seconds it took)."""
    from fg3dgs_jax.avatar import subject as subject_lib
    from fg3dgs_jax.experts.audio import audio_features

    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; expected the name of an mp4 file")
    samples = video.read_audio(audio)
    subject = subject_lib.open_subject(workdir, data)
    num_frames = windows.num_frames_of(samples)
    settings = subject.avatar.config.data
    name = settings.audio_extractor
    audio_features.check_window(settings, audio_features.lookup(name).window, audio)
    heard = samples
    if "sound" in subject.clip.meta:  # speech at the common level is what the avatar learnt from
        heard = loudness.apply_gain(samples, loudness.gain_db(samples))
    features = audio_features.extract(name, heard, num_frames)
    pool = subject.clip.split(split)
    poses = pool[play.ping_pong(num_frames, len(pool))]
    frames = play.draw_pictures(
        subject.avatar, subject.clip, features, subject.expression, poses, np.arange(num_frames)
    )
    meter = Meter(subject.clip, poses) if check else None
    frames = meter.watch(frames) if check else frames
    start = time.perf_counter()
    progress = tqdm.tqdm(frames, desc="synthesize", total=num_frames, unit="frame")
    video.write_video(out, progress, samples, crf=crf)
    if check:
        print(meter.verdict(samples))
    return num_frames, time.perf_counter() - start


def main(argv=None) -> int:
    """Runs the program; 0 on success, 1 with one line on bad input."""
    flags = parse(argv)
    try:
        frames, seconds = synthesize(
            flags.workdir, flags.audio, flags.out, flags.split, flags.data, flags.crf, flags.check
        )
    except (ValueError, OSError) as error:
        print(f"synthesize: {error}", file=sys.stderr)
        return 1
    length, speed = frames / video.FPS, frames / seconds
    print(f"{flags.out}: {frames} frames ({length:.2f} s) in {seconds:.1f} s, {speed:.1f} frames/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
