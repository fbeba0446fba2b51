"""Names where a run stopped being finite: step, region and term of the loss."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# Not a term of any loss; a perfect picture's is infinite.
NO_TERMS = ("loss", "psnr")


def first_fault(each: Mapping[str, Any]) -> tuple[int, list[tuple[str, float]]] | None:
    """(step within the dispatch, [(term, value), ...]) of the first loss that is not finite.

    Args:
      each: {name: [K]} metrics of each step, "loss" among them; terms are "region/term", or "term"
        where layers are fused.

    Returns None where all K losses are finite.
    """
    bad = np.flatnonzero(~np.isfinite(each["loss"]))
    if len(bad) == 0:
        return None
    step = int(bad[0])
    values = {name: float(x[step]) for name, x in each.items() if name not in NO_TERMS}
    terms = [(name, value) for name, value in values.items() if not np.isfinite(value)]
    return step, terms or [("loss", float(each["loss"][step]))]


def check_losses(each: Mapping[str, Any], stage: str, done: int, saved: int | None) -> None:
    """Raises a FloatingPointError in one line if a step of a dispatch had no finite loss.

    Args:
      each: as for `first_fault`, on the host.
      stage: its name.
      done: steps done in all stages before the dispatch.
      saved: total step of the newest checkpoint, or None.
    """
    fault = first_fault(each)
    if fault is None:
        return
    step, terms = fault
    faults = ", ".join(f"{name} is {value}" for name, value in terms[:4])
    faults += f" and {len(terms) - 4} more" if len(terms) > 4 else ""
    raise FloatingPointError(
        f"stage {stage}, step {done + step + 1}: {faults}; {_last(saved)} {_advice(stage)}"
    )


def check_state(state: Any, stage: str, done: int, saved: int | None) -> None:
    """Raises a FloatingPointError naming what in a state (on the host) is not finite.

    The step before a loss that is not finite has one: it is not to become a checkpoint.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.asarray(leaf)
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(path).lstrip(".")
            raise FloatingPointError(
                f"stage {stage}, step {done}: {name} is not finite; {_last(saved)} {_advice(stage)}"
            )


def _last(saved):
    return (
        "no checkpoint yet;" if saved is None else f"the last checkpoint (step {saved}) is whole;"
    )


def _advice(stage):
    return f"lower the learning rates or the loss weights of config.stages.{stage}"
