"""A processed folder in the making: which steps are whole, and the run of those that are not.

`state.json` in the folder holds:

- `key`: what the whole folder is made of. Another key, and every step is done again.
- `done`: {step: its `Step.record`}. Another record, and that step is done again.
- `filling`: {step: {"made_by": its record, "rows": how many are whole}} of interrupted steps.
- `seconds`: {step: how long it took}.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fg3dgs_jax.clip import format
from fg3dgs_jax.preprocessing.step import Step
from fg3dgs_jax.system import arrays, faults, lock

# Bytes free below which a failed write is the disk's fault.
_NEARLY_NOTHING = 1 << 20


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

        The step is the current one from now on: its clock runs, and `begin`, `resumable`, `filled`
        and `finish` are about it.
        """
        self._since = time.monotonic()
        self._step, self._record = step, record
        whole = all(arrays.is_whole(self.path / file) for file in files)
        return whole and self._state["done"].get(step) == record

    def begin(self) -> None:
        """Forgets an earlier result of the current step, whose files are to be written over."""
        if self._state["done"].pop(self._step, None) is not None:
            self.save("state", self._state)

    def finish(self) -> None:
        """Remembers that the current step is whole; with another record it is done again."""
        self._state["done"][self._step] = self._record
        self._state.get("filling", {}).pop(self._step, None)
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

    def array(self, name: str, shape: Sequence[int], suffix: str = "part") -> np.memmap:
        """A uint8 .npy file to fill; `keep` gives it its name when it is whole.

        Its room on the disk is taken at once: a disk that fills up under a memory map would kill
        the program without a message.
        """
        part = self.path / f".{name}.{suffix}.npy"
        array = np.lib.format.open_memmap(part, "w+", np.uint8, tuple(shape))
        if hasattr(os, "posix_fallocate"):
            with open(part, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
                except OSError as error:
                    if faults.is_full(error):
                        raise OSError(error.errno, error.strerror, str(part)) from None
        return array

    def keep(self, name: str, array: np.memmap) -> None:
        """Closes an array of `array` or `resumable` under its final name."""
        array.flush()
        pathlib.Path(str(array.filename)).replace(self.path / f"{name}.npy")

    def resumable(self, shapes: Mapping[str, Sequence[int]]) -> tuple[list[np.memmap], int]:
        """Arrays of the current step that outlive an interruption, to be filled row by row.

        What the step left with another record is not taken up.

        Args:
          shapes: {name: shape}.

        Returns:
          ([array, ...] in the order of the names, how many rows are `filled` already).
        """
        paths = [self.path / f".{name}.filling.npy" for name in shapes]
        left = self._state.get("filling", {}).get(self._step, {})
        if left.get("made_by") == self._record and all(path.exists() for path in paths):
            return [np.lib.format.open_memmap(path, "r+") for path in paths], left["rows"]
        return [self.array(name, shape, "filling") for name, shape in shapes.items()], 0

    def filled(self, rows: int, arrays: Sequence[np.memmap]) -> None:
        """Remembers that the first `rows` of the arrays of `resumable` are there to stay."""
        for array in arrays:
            array.flush()
        filling = self._state.setdefault("filling", {})
        filling[self._step] = {"made_by": self._record, "rows": rows}
        self.save("state", self._state)

    def chunk(self, name: str, index: int) -> pathlib.Path:
        """Path of the file with chunk `index` of a long step, which outlives an interruption."""
        return self.path / f".{name}.{index:04d}.chunk.npz"

    def forget_chunks(self, name: str = "*") -> None:
        """Removes the chunks of a step that is whole, or whose input has changed."""
        for path in self.path.glob(f".{name}.[0-9]*.chunk.npz"):
            path.unlink(missing_ok=True)
        for path in self.path.glob(f".{name}.filling.npy"):
            path.unlink(missing_ok=True)

    def make_room(self, arrays: Mapping[str, Sequence[int]]) -> None:
        """Refuses to begin what the disk has no room for.

        Args:
          arrays: {name: shape} of the uint8 arrays that the steps will write. Those that are in
            the folder already take no more room.

        Raises:
          DiskFullError: with the numbers.
        """
        names = ("{}.npy", ".{}.filling.npy")
        missing = {
            name: shape
            for name, shape in arrays.items()
            if not any((self.path / file.format(name)).exists() for file in names)
        }
        needed = sum(int(np.prod(shape, dtype=np.int64)) for shape in missing.values())
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise DiskFullError(
                f"{self.path} needs {needed / 1e9:.1f} GB for {', '.join(missing)}, the disk has "
                f"{free / 1e9:.1f} GB free: free some, choose another --out, or use --size or "
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
