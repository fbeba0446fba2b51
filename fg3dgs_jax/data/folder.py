"""A processed folder in the making: which steps' files are whole, and of what they were made."""

import json
import pathlib
import shutil
import time

import numpy as np


class Folder:
    """The output folder and its state file: which stage's files are whole, and for what input."""

    def __init__(self, path, key):
        self.path = pathlib.Path(path)
        self.created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._file = self.path / "state.json"
        state = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._state = state if state.get("key") == key else {"key": key, "done": {}}
        self._since = time.monotonic()

    def has(self, stage, files, made_by=True):
        """True if the stage was finished for this input by `made_by` and its files are there."""
        self._since = time.monotonic()  # a step asks first, then works
        there = all((self.path / f).exists() for f in files)
        return there and self._state["done"].get(stage) == made_by

    def finish(self, stage, made_by=True):
        """Remembers that a stage is whole; for another `made_by` (JSON) it is done again."""
        self._state["done"][stage] = made_by
        seconds = self._state.setdefault("seconds", {})
        seconds[stage] = round(time.monotonic() - self._since, 2)
        self._save()

    @property
    def seconds(self) -> dict:
        """{stage: seconds it took when it was last done}."""
        return dict(self._state.get("seconds", {}))

    def begin(self, stage):
        """Forgets an earlier result of the stage, whose files are to be written over."""
        if self._state["done"].pop(stage, None):
            self._save()

    def _save(self):
        part = self.path / ".state.part.json"
        part.write_text(json.dumps(self._state))
        part.replace(self._file)

    def array(self, name, shape):
        """A uint8 .npy file to fill; `keep` gives it its name when it is whole."""
        part = self.path / f".{name}.part.npy"
        return np.lib.format.open_memmap(part, "w+", np.uint8, shape)

    def keep(self, name, array):
        """Closes an array of `array` under its final name."""
        array.flush()
        (self.path / f".{name}.part.npy").replace(self.path / f"{name}.npy")

    def clean(self, whole):
        """Leaves nothing half-written; with `whole` the folder goes too if this run made it."""
        if whole and self.created:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for part in self.path.glob(".*.part*"):
            part.unlink(missing_ok=True)
