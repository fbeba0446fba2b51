"""`--config FILE.py[:VARIANT] --config.a.b=value` by ml_collections, with errors of one line."""

import dataclasses
import sys
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from fg3dgs_jax.config import loading
from fg3dgs_jax.config.settings import Settings, unknown


def define() -> flags.FlagHolder:
    """Declares `--config`; the program that calls it declares it a key flag, for its --help."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file and variant, e.g. configs/obama.py:tuned,small; or a variant of the packaged "
        "settings, e.g. tuned,small. --config.a.b=value changes one value of it",
    )


def parse(argv: list[str]) -> list[str]:
    """Absl's parser; a config or key that does not exist is one line, exit code 2."""
    if {"--help", "-help", "-h"} & set(argv[1:]):  # absl would exit with 1
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    argv[:] = _with_files(argv)
    try:
        rest = flags.FLAGS(argv)
        _ = flags.FLAGS.config.name  # a file that failed to load only shows when it is read
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines()]
        lines = [line for line in lines if line and not line.startswith("Pass --help")]
        # A config file's own error comes last in ml_collections' message, after its traceback.
        problem = _unknown_key(argv) or " ".join(lines if len(lines) < 4 else lines[-1:])
        hint = "expected --config configs/NAME.py[:VARIANT] and known keys"
        print(f"train: {problem}; {hint}".replace("\\'", "'"), file=sys.stderr)
        sys.exit(2)


def _with_files(argv: list[str]) -> list[str]:
    """`argv` in which a variant alone is preceded by the packaged file that it is one of."""
    argv = list(argv)
    for i, text in enumerate(argv):
        if text.startswith("--config="):
            argv[i] = "--config=" + loading.for_flag(text.removeprefix("--config="))
        elif text == "--config" and i + 1 < len(argv):
            argv[i + 1] = loading.for_flag(argv[i + 1])
    return argv


def _unknown_key(argv: list[str]) -> str | None:
    """One line about the first override of a setting that does not exist."""
    for text in argv:
        if not text.startswith("--config."):
            continue
        place: Any = loading.Config()
        for name in text.removeprefix("--config.").split("=")[0].split("."):
            if isinstance(place, Settings):
                known = [f.name for f in dataclasses.fields(place)]  # type: ignore[arg-type]
            elif isinstance(place, dict):
                known = list(place)
            else:
                break
            if name not in known:
                return unknown(name, known, type(place).__name__)
            place = place[name] if isinstance(place, dict) else getattr(place, name)
    return None
