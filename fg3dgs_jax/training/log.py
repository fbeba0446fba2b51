"""What a run leaves to look at: `metrics.jsonl`, TensorBoard events, sample pictures, profiles."""

import contextlib
import json
import os
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from fg3dgs_jax.media import plots
from fg3dgs_jax.media.whole_files import whole


class Log:
    """One JSON object a logged step, and the same scalars for TensorBoard."""

    def __init__(
        self, workdir: str | os.PathLike[str], resume_step: int, writes: bool = True
    ) -> None:
        self._events = None
        if not writes:  # another process does
            return
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        rows = []
        if self._path.exists():
            # Steps after the checkpoint that we resume from will be done, and logged, again.
            rows = [r for r in map(_parse, self._path.read_text().splitlines()) if r]
            rows = [r for r in rows if r["step"] <= resume_step]
        with whole(self._path) as part:
            part.write_text("".join(json.dumps(r) + "\n" for r in rows))
        folder = pathlib.Path(workdir) / "tensorboard"
        folder.mkdir(exist_ok=True)
        # Not a SummaryWriter: its thread dies of a full disk, and then its queue waits forever.
        self._events = event_file_writer.EventsWriter(str(folder / "events"))

    def write(self, step: int, stage: str, scalars: dict[str, float]) -> None:
        """Appends the metrics of one step."""
        if self._events is None:
            return
        scalars = {k: float(v) for k, v in scalars.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "stage": stage, **scalars}) + "\n")
        now = time.time()
        for name, value in scalars.items():
            value_of = summary.scalar(f"{stage}/{name}", value)
            # Protobuf makes the class as it is imported.
            event = event_pb2.Event(wall_time=now, step=step, summary=value_of)  # type: ignore
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Writes out what is not yet in the files."""
        if self._events is not None:
            self._events.close()


class Profile:
    """Times every dispatch, and traces a few of each stage into `folder`/STAGE.

    A stage's first dispatch compiles it and is left out of both.
    """

    TRACED = 2  # dispatches of a stage
    SCOPES = "batch_preparation, colors, composite, losses, lpips, guides, optimizer"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = pathlib.Path(folder)
        self._times: dict[str, list[float]] = {}  # {stage: [ms a step of each dispatch]}

    @contextlib.contextmanager
    def dispatch(self, stage: str, steps: int, begin: float) -> Iterator[None]:
        """Around a dispatch of so many steps, up to the end of its work on the device.

        `begin`: when its inputs began to be waited for, by `time.perf_counter`.
        """
        times = self._times.setdefault(stage, [])
        waited = time.perf_counter() - begin
        traced = 1 <= len(times) <= self.TRACED
        with jax.profiler.trace(self._folder / stage) if traced else contextlib.nullcontext():
            begin = time.perf_counter()
            yield
            spent = waited + time.perf_counter() - begin
        times.append(1e3 * spent / steps)

    def report(self) -> None:
        """Prints the median time a step of each stage, and where the traces are."""
        for stage, times in self._times.items():
            # Those under the tracer are slower; they count where there are no others.
            counted = times[1 + self.TRACED :] or times[1:] or times
            note = "" if times[1:] else ", compiling included: the stage has one dispatch only"
            print(f"{stage}: {statistics.median(counted):.2f} ms a step{note}")
        print(f"traces: {self._folder} (named scopes: {self.SCOPES})")


def _parse(line):
    try:
        return json.loads(line)
    except ValueError:  # the last line of a run that was killed while writing it
        return None


def sample_picture(
    truth: np.ndarray,
    image: np.ndarray,
    layers: Mapping[str, np.ndarray],
    alphas: Mapping[str, np.ndarray],
    gain: float = 4.0,
) -> np.ndarray:
    """uint8 [H, 6 W, 3]: ground truth | render | face | eyes | mouth on grey | |error| x gain."""
    panels = [truth, image]
    panels += [layers[r] + (1.0 - alphas[r][..., None]) * 0.5 for r in ("face", "eyes", "mouth")]
    panels += [np.abs(truth - image) * gain]
    return np.rint(np.clip(np.concatenate(panels, 1), 0.0, 1.0) * 255.0).astype(np.uint8)


def save_picture(path: str | os.PathLike[str], rows: Sequence[np.ndarray]) -> None:
    """Stacks uint8 RGB pictures of one width and writes a PNG."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.write_png(path, np.concatenate(rows, 0))
