"""What a run leaves to look at: `metrics.jsonl`, TensorBoard events, sample pictures."""

import json
import pathlib

import cv2
import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Log:
    """One JSON object a logged step, and the same scalars for TensorBoard.

    clu's metric writers need TensorFlow; tensorboard's own event writer does not.
    """

    def __init__(self, workdir, resume_step: int):
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        rows = []
        if self._path.exists():
            # Steps after the checkpoint that we resume from will be done, and logged, again.
            rows = [r for r in map(_parse, self._path.read_text().splitlines()) if r]
            rows = [r for r in rows if r["step"] <= resume_step]
        self._path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        self._events = EventFileWriter(str(pathlib.Path(workdir) / "tensorboard"))

    def write(self, step: int, stage: str, scalars: dict):
        scalars = {k: float(v) for k, v in scalars.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "stage": stage, **scalars}) + "\n")
        values = [
            summary_pb2.Summary.Value(tag=f"{stage}/{k}", simple_value=v)
            for k, v in scalars.items()
        ]
        self._events.add_event(
            event_pb2.Event(step=step, summary=summary_pb2.Summary(value=values))
        )

    def close(self):
        self._events.close()


def _parse(line):
    try:
        return json.loads(line)
    except ValueError:  # the last line of a run that was killed while writing it
        return None


def sample_picture(truth, image, layers, alphas, gain: float = 4.0):
    """uint8 [H, 6 W, 3]: truth | render | face | eyes | mouth on grey | |error| x gain."""
    panels = [truth, image]
    panels += [layers[r] + (1.0 - alphas[r][..., None]) * 0.5 for r in ("face", "eyes", "mouth")]
    panels += [np.abs(truth - image) * gain]
    return np.rint(np.clip(np.concatenate(panels, 1), 0.0, 1.0) * 255.0).astype(np.uint8)


def save_picture(path, rows):
    """Stacks uint8 RGB pictures of one width and writes a PNG."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(rows, 0)[..., ::-1])
