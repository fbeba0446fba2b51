"""What a step of preprocessing is: files of the folder in, files of the folder out."""

import dataclasses
from collections.abc import Callable
from typing import Any


def _nothing_else(_job: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Step:
    """One step. A list of them is a pipeline, which `resume.run` carries out.

    A step is given one value, the job: an object that holds the folder, the source, the settings
    and the models (`job.Job`). It reads the files that earlier steps have left and writes its own.
    Nothing passes from step to step but through the folder, so that any of them can be resumed.
    """

    name: str  # under which the folder remembers it
    run: Callable[[Any], None]  # writes the files of `makes`
    needs: tuple[str, ...] = ()  # files of earlier steps that it reads
    makes: tuple[str, ...] = ()  # files that it writes
    version: int = 1  # of its results: raised, the step is done again in every folder
    # What its files depend on besides the folder's key and the version, as JSON.
    made_by: Callable[[Any], Any] = _nothing_else
    applies: Callable[[Any], bool] = _nothing_else  # False: this job has no use for it
    always: bool = False  # it is quick, or shows something: done at every run and not remembered

    def record(self, job: Any) -> Any:
        """What the folder remembers of the step once it is done (JSON).

        A version of 1 is not written, so that folders made before steps had versions stay valid.
        """
        made_by = self.made_by(job)
        if self.version == 1:
            return made_by
        inputs = made_by if isinstance(made_by, dict) else {"made_by": made_by}
        return {**inputs, "version": self.version}
