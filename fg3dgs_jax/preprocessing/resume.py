"""A processed folder in the making: which steps' files are whole, and of what they were made."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import time

import numpy as np

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NOTHING = 1 << 20  # bytes free: a failed write is the disk's fault


class DiskFullError(OSError):
    """A write that the disk has no room for; one line that says what to do."""


class Folder:
    """The output folder and its state file: which stage's files are whole, and for what input."""

    def __init__(self, path, key):
        self.path = pathlib.Path(path)
        self.created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._file = self.path / "state.json"
        state = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._since = time.monotonic()
        self._stage = "the folder"
        self._state = state
        if state.get("key") != key:
            self._state = {"key": key, "done": {}}
            self.forget_chunks()
            self.save("state", self._state)

    def has(self, stage, files, made_by=True):
        """True if the stage was finished for this input by `made_by` and its files are there."""
        self._since = time.monotonic()  # a step asks first, then works
        self._stage = stage
        there = all((self.path / f).exists() for f in files)
        return there and self._state["done"].get(stage) == made_by

    def finish(self, stage, made_by=True):
        """Remembers that a stage is whole; for another `made_by` (JSON) it is done again."""
        self._state["done"][stage] = made_by
        self._state.get("filling", {}).pop(stage, None)
        seconds = self._state.setdefault("seconds", {})
        seconds[stage] = round(time.monotonic() - self._since, 2)
        self._since = time.monotonic()
        self.save("state", self._state)

    @property
    def seconds(self) -> dict:
        """{stage: seconds it took when it was last done}."""
        return dict(self._state.get("seconds", {}))

    def begin(self, stage):
        """Forgets an earlier result of the stage, whose files are to be written over."""
        if self._state["done"].pop(stage, None):
            self.save("state", self._state)

    def save(self, name, content):
        """Writes `content` (JSON) to NAME.json, whole or not at all."""
        part = self.path / f".{name}.part.json"
        part.write_text(json.dumps(content))
        part.replace(self.path / f"{name}.json")

    def load(self, name):
        """The content of NAME.json."""
        return json.loads((self.path / f"{name}.json").read_text())

    def array(self, name, shape, suffix="part"):
        """A uint8 .npy file to fill; `keep` gives it its name when it is whole.

        Its room on the disk is taken at once: a disk that fills up under a memory map would kill
        the program without a word.
        """
        part = self.path / f".{name}.{suffix}.npy"
        array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):
            with open(part, "r+b") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
                except OSError as error:
                    if error.errno in _FULL:
                        raise OSError(error.errno, error.strerror, str(part)) from None
        return array

    def keep(self, name, array):
        """Closes an array of `array` or `resumable` under its final name."""
        array.flush()
        pathlib.Path(array.filename).replace(self.path / f"{name}.npy")

    def resumable(self, stage, made_by, shapes):
        """Arrays like those of `array` that outlive an interruption, to be filled row by row.

        Args:
          stage: whose arrays they are.
          made_by: what their content depends on (JSON); what another one left is not taken up.
          shapes: {name: shape}.

        Returns:
          ([array, ...] in the order of the names, how many rows are `filled` already).
        """
        paths = [self.path / f".{name}.filling.npy" for name in shapes]
        left = self._state.get("filling", {}).get(stage, {})
        if left.get("made_by") == made_by and all(path.exists() for path in paths):
            return [np.lib.format.open_memmap(path, "r+") for path in paths], left["rows"]
        return [self.array(name, shape, "filling") for name, shape in shapes.items()], 0

    def filled(self, stage, made_by, rows, arrays):
        """Remembers that the first `rows` of the arrays of `resumable` are there to stay."""
        for array in arrays:
            array.flush()
        self._state.setdefault("filling", {})[stage] = {"made_by": made_by, "rows": rows}
        self.save("state", self._state)

    def chunk(self, name, index):
        """Path of the file with chunk `index` of a long step, which outlives an interruption."""
        return self.path / f".{name}.{index:04d}.chunk.npz"

    def forget_chunks(self, name="*"):
        """Removes the chunks of a step that is whole, or whose input has changed."""
        for path in self.path.glob(f".{name}.[0-9]*.chunk.npz"):
            path.unlink(missing_ok=True)
        for path in self.path.glob(f".{name}.filling.npy"):
            path.unlink(missing_ok=True)

    def make_room(self, arrays):
        """Refuses to begin what the disk has no room for.

        Args:
          arrays: {name: shape} of the uint8 arrays that the steps will write; those there already
            take no more room.

        Raises:
          DiskFullError: with the numbers.
        """
        names = ("{}.npy", ".{}.filling.npy")
        there = {n for n in arrays if any((self.path / k.format(n)).exists() for k in names)}
        missing = {n: s for n, s in arrays.items() if n not in there}
        needed = sum(int(np.prod(shape, dtype=np.int64)) for shape in missing.values())
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise DiskFullError(
                f"{self.path} needs {needed / 1e9:.1f} GB for {', '.join(missing)}, the disk has "
                f"{free / 1e9:.1f} GB free: free some, choose another --out, or use --size or "
                "--max_seconds for less"
            )

    def explained(self, error):
        """The OSError of a failed write; if the disk is full, one that says how to go on."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path).free
            if error.errno in _FULL or free < _NEARLY_NOTHING:
                what = pathlib.Path(error.filename).name if error.filename else self._stage
                return DiskFullError(
                    f"the disk is full: there was no room to write {what} (step "
                    f"{self._stage!r}) in {self.path}; free some and run the same command again, "
                    "it goes on from here: finished steps are kept"
                )
        return error

    @contextlib.contextmanager
    def at_work(self):
        """Takes `meta.json` away, which is written again last; an error leaves nothing half-made.

        A ValueError means that the input will not do: a folder that this run made goes too.
        Anything else is an interruption: finished steps are used again next time.
        """
        try:
            (self.path / "meta.json").unlink(missing_ok=True)
            yield self
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

    def clean(self, whole):
        """Leaves nothing half-written; with `whole` the folder goes too if this run made it."""
        if whole and self.created:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for part in self.path.glob(".*.part*"):
            part.unlink(missing_ok=True)
