"""Trains an avatar: every stage of a config, on a processed folder.

python -m fg3dgs_jax.train --config configs/obama.py [--workdir runs/obama] [--config.seed=1]

Resumes from the workdir by itself. Writes checkpoints (Orbax), `avatar.npz`, `metrics.jsonl`,
TensorBoard events and sample pictures (ground truth | render | face | eyes | mouth | error) there.

All devices of the machine share the work; `config.batch` is the frames a step on each of them.
Several processes, on one machine or on many that share the workdir, train one avatar with

    ... --distributed --coordinator HOST:PORT --num_processes 2 --process_id 0    # and 1

or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment; a cluster
that JAX knows (Slurm, Open MPI, TPU pods) needs --distributed only. `--profile` writes traces to
the workdir's `profile/`, for TensorBoard or Perfetto, and prints each stage's time a step.
"""

from absl import app, flags
from absl import logging as absl_logging

from fg3dgs_jax.avatar import workdir as workdir_lib
from fg3dgs_jax.config import flags as config_flags
from fg3dgs_jax.system import faults, programs

_CONFIG = config_flags.define()
flags.declare_key_flag("config")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; by default runs/NAME, the config's name"
)
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Write profiler traces to WORKDIR/profile, print each stage's time a step"
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them, from 0", lower_bound=0)


def main(argv: list[str]) -> int:
    """Trains; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    return faults.run("train", _train, "the same command goes on from the newest checkpoint")


def _train() -> int:
    config = _CONFIG.value
    workdir = _WORKDIR.value or f"runs/{config.name}"
    if (seconds := workdir_lib.finished(workdir, config)) is not None:
        print(f"{workdir} is trained already, in {seconds:.0f} s: there is nothing left to do")
        return 0
    # Here, because they bring in JAX's networks, which --help and a finished run do not need.
    from fg3dgs_jax.training import loop, parallel

    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file at INFO
    parallel.give_threads()
    programs.keep()
    if _DISTRIBUTED.value:
        parallel.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    seconds = loop.fit(config, workdir, _PROFILE.value)
    if parallel.writes():
        print(f"trained {workdir} in {seconds:.0f} s")
    parallel.disconnect()
    return 0


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=config_flags.parse)
