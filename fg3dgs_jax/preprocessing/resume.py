"""A processed folder in the making: which steps are whole, and the run of those that are not.

`state.json` in the folder holds:

- `key`: what the whole folder is made of. Another key, and every step is done again.
- `done`: {step: its `Step.record`}. Another record, and that step is done again.
- `chunks`: {step: its record} of interrupted steps, whose chunks are taken up if it is the same.
- `seconds`: {step: how long it took}.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from fg3dgs_jax.clip import format, streams
from fg3dgs_jax.preprocessing.step import Step
from fg3dgs_jax.system import arrays, faults, lock

# Bytes free below which a failed write is the disk's fault.
_NEARLY_NOTHING = 1 << 20
BYTES_A_PIXEL = 0.2  # on the disk, of all streams and what is there while they are made


class DiskFullError(OSError):
    """A write that the disk has no room for; one line with what to do."""


class Folder:
    """The output folder and its state file: which step's files are whole, and for what input."""

    def __init__(self, path: os.PathLike | str, key: dict) -> None:
        """Opens or makes the folder.

        Args:
          path: of the folder.
          key: what the whole folder is made of (JSON). What was made for another is not used.
        """
        self.path = pathlib.Path(path)
        self.created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._key = key
        self._since = time.monotonic()
        self._step, self._record = "the folder", True
        self._read()

    def _read(self) -> None:
        """Reads `state.json`; what was made for another key, or cannot be known, is not used."""
        file = self.path / "state.json"
        self._state, self._state_is_new = {}, False
        if file.exists():
            try:
                self._state = dict(json.loads(file.read_text()))
            except (TypeError, ValueError):
                print(f"{file} is damaged; every step is done again", file=sys.stderr)
        if self._state.get("key") != self._key:
            self._state = {"key": self._key, "done": {}}
            self._state_is_new = True

    def has(self, step: str, files: Sequence[str], record: Any = True) -> bool:
        """Whether the step was finished with this record and its files are whole in the folder.

        The step is the current one from now on: its clock runs, and `begin` and `finish` are
        about it.
        """
        self._since = time.monotonic()
        self._step, self._record = step, record
        whole = all(arrays.is_whole(self.path / file) for file in files)
        return whole and self._state["done"].get(step) == record

    def begin(self) -> None:
        """Forgets an earlier result of the current step, and chunks that were made otherwise."""
        chunks = self._state.setdefault("chunks", {})
        known = self._state["done"].pop(self._step, None) is None
        if not known or chunks.get(self._step) != self._record:
            self.forget_chunks(self._step)
            chunks[self._step] = self._record
            self.save("state", self._state)

    def finish(self) -> None:
        """Remembers that the current step is whole; with another record it is done again."""
        self._state["done"][self._step] = self._record
        self._state.get("chunks", {}).pop(self._step, None)
        seconds = self._state.setdefault("seconds", {})
        seconds[self._step] = round(time.monotonic() - self._since, 2)
        self._since = time.monotonic()
        self.save("state", self._state)
        self.forget_chunks(self._step)

    @property
    def seconds(self) -> dict[str, float]:
        """{step: seconds it took when it was last done}."""
        return dict(self._state.get("seconds", {}))

    def save(self, name: str, content: Any) -> None:
        """Writes `content` (JSON) to NAME.json, whole or not at all."""
        part = self.path / f".{name}.part.json"
        part.write_text(json.dumps(content))
        part.replace(self.path / f"{name}.json")

    def load(self, name: str) -> Any:
        """The content of NAME.json."""
        return json.loads((self.path / f"{name}.json").read_text())

    @contextlib.contextmanager
    def streams(self, *names: str) -> Iterator[streams.Sinks]:
        """Streams to fill; they become NAME.mkv when the block ends without an error.

        An array of the same pictures that an earlier version wrote gives way to them.
        """
        parts = {name: self.path / f".{name}.part.mkv" for name in names}
        with streams.Sinks(parts) as sinks:
            yield sinks
        for name, part in parts.items():
            part.replace(self.path / f"{name}.mkv")
            (self.path / f"{name}.npy").unlink(missing_ok=True)

    def chunk(self, name: str, index: int, suffix: str = ".npz") -> pathlib.Path:
        """Path of the file with a chunk of the step `name`, which outlives an interruption."""
        return self.path / f".{name}.{index:04d}.chunk{suffix}"

    def forget_chunks(self, name: str = "*") -> None:
        """Removes the chunks of a step that is whole, or whose input has changed."""
        # The second ones are of earlier versions.
        for pattern in (f".{name}.[0-9]*.chunk.*", ".*.filling.npy"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def make_room(self, pictures: Sequence[int]) -> None:
        """Refuses to begin what the disk has no room for.

        Args:
          pictures: [T, H, W] of the streams that the steps will write. Those that are in the folder
            already take no more room.

        Raises:
          DiskFullError: with the numbers.
        """
        missing = [name for name in streams.STREAMS if not (self.path / name).exists()]
        share = len(missing) / len(streams.STREAMS)
        needed = share * BYTES_A_PIXEL * float(np.prod(pictures, dtype=np.float64))
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise DiskFullError(
                f"{self.path} needs about {needed / 1e9:.1f} GB for {', '.join(missing)}, the disk "
                f"has {free / 1e9:.1f} GB free: free some, choose another --out, or use --size or "
                "--max_seconds for less"
            )

    def explained(self, error: OSError) -> OSError:
        """The OSError of a failed write; if the disk is full, one with how to go on."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path).free
            if faults.is_full(error) or free < _NEARLY_NOTHING:
                path = faults.shown_path(error.filename)
                what = path.name if path else self._step
                return DiskFullError(
                    f"the disk is full: there was no room to write {what} (step "
                    f"{self._step!r}) in {self.path}; free some and run the same command again, "
                    "it goes on from here: finished steps are kept"
                )
        return error

    @contextlib.contextmanager
    def at_work(self) -> Iterator["Folder"]:
        """Takes `meta.json` away, which is written again last; an error leaves nothing half-made.

        A ValueError means that the input will not do: a folder that this run made goes too.
        Anything else is an interruption: finished steps are used again next time.

        Raises:
          lock.Locked: another process writes the folder.
        """
        with lock.held(self.path, "preprocess"):
            self._read()  # another process may have written it meanwhile
            with self._cleaned():
                yield self

    @contextlib.contextmanager
    def _cleaned(self) -> Iterator[None]:
        """Leaves nothing half-made behind, whether an error ends the block or one did before."""
        try:
            self.clean(whole=False)
            if self._state_is_new:
                self.forget_chunks()
                self.save("state", self._state)
            (self.path / "meta.json").unlink(missing_ok=True)
            yield
        except ValueError:
            self.clean(whole=True)
            raise
        except OSError as error:
            explained = self.explained(error)  # before the room is given back
            self.clean(whole=False)
            raise explained from None
        except BaseException:
            self.clean(whole=False)
            raise

    def clean(self, whole: bool) -> None:
        """Leaves nothing half-written; with `whole` the folder goes too if this run made it."""
        if whole and self.created:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for part in self.path.glob(".*.part*"):
            part.unlink(missing_ok=True)


class Work(Protocol):
    """What `run` asks of a job; the rest is between the job and its steps."""

    @property
    def folder(self) -> Folder:
        """The folder in the making."""
        ...

    def meta(self) -> dict[str, Any]:
        """Arguments of `format.save_meta`, once the steps are done."""
        ...


def run(steps: Sequence[Step], job: Work) -> None:
    """Carries out the steps whose files are not whole, in their order, and writes `meta.json` last.

    Raises:
      ValueError: an input that will not do; a folder that this run made is gone again.
      OSError: nothing can be written, or the disk is full. Finished steps are used the next time.
    """
    folder = job.folder
    with folder.at_work():
        for step in steps:
            if step.applies(job):
                _carry_out(step, job, folder)
        format.save_meta(folder.path, **job.meta())


def _carry_out(step: Step, job: Work, folder: Folder) -> None:
    if step.always:
        step.run(job)
        return
    record = step.record(job)
    if folder.has(step.name, step.makes, record):
        return
    folder.begin()
    step.run(job)
    folder.finish()
