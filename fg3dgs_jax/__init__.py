"""Talking heads from 3D Gaussians: learn one person from a video, then speak any sound.

A reimplementation in JAX of FG-3DGS. These lines prepare a video, train on it, draw and speak:

    import fg3dgs_jax as fg

    fg.preprocess("talk.mp4", "data/me", consent="self")
    config = fg.config.load("tuned,small")
    config.data.path = "data/me"
    fg.train(config, "runs/me")
    print("PSNR", fg.evaluate("runs/me")["psnr"])
    avatar = fg.load_avatar("runs/me")
    frames = list(avatar.speak("new.wav"))
    fg.synthesize("runs/me", "new.wav", "talking.mp4")

Names:

    preprocess(video, out)           any video with sound -> a processed folder
    load_clip(path)                  a processed folder or packed file -> a Clip
    config                           load(name) -> a Config, every setting with its default
    train(config, workdir)           a Config, or its name -> a workdir with a trained avatar
    load_avatar(workdir)             a workdir -> an Avatar
    Avatar                           a trained avatar: speak, draw, draw_pictures
    evaluate(workdir)                metrics, comparison video and report on held-out frames
    synthesize(workdir, audio, out)  any sound -> an mp4 in which the avatar speaks it
    rasterizer                       Gaussians -> pixels, differentiable, on GPU and CPU

Paths are strings or `os.PathLike`. Pictures are uint8 RGB [height, width, 3], 25 a second. Sound is
16 kHz mono int16. Bad input is a ValueError with one line: what was found, what was expected, what
to do. The programs do the same from a shell: `python -m fg3dgs_jax` lists them.

Names are imported when they are first used: `import fg3dgs_jax` alone does not start JAX.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fg3dgs_jax import config as config
    from fg3dgs_jax import rasterizer as rasterizer
    from fg3dgs_jax.avatar.draw import Avatar as Avatar
    from fg3dgs_jax.avatar.store import load as load_avatar
    from fg3dgs_jax.clip.open import open_clip as load_clip
    from fg3dgs_jax.evaluation.run import evaluate as evaluate
    from fg3dgs_jax.preprocessing.run import preprocess as preprocess
    from fg3dgs_jax.synthesis.run import synthesize as synthesize
    from fg3dgs_jax.training.loop import fit as train

__version__ = "0.1.0"

# Where each public name is defined: module and attribute, or a module alone.
_HOMES = {
    "Avatar": ("avatar.draw", "Avatar"),
    "config": ("config", None),
    "evaluate": ("evaluation.run", "evaluate"),
    "load_avatar": ("avatar.store", "load"),
    "load_clip": ("clip.open", "open_clip"),
    "preprocess": ("preprocessing.run", "preprocess"),
    "rasterizer": ("rasterizer", None),
    "synthesize": ("synthesis.run", "synthesize"),
    "train": ("training.loop", "fit"),
}

__all__ = [
    "Avatar",
    "config",
    "evaluate",
    "load_avatar",
    "load_clip",
    "preprocess",
    "rasterizer",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = importlib.import_module(f"{__name__}.{module}")
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names too, whether they are imported or not."""
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """This package: a program never takes the name of the function that it calls.

    `fg3dgs_jax/train.py` is the program, `fg3dgs_jax.train` the function. The import system sets a
    submodule as an attribute of its package, which would hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if _HOMES.get(name, ("", None))[1] is None or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
