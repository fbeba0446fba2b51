"""Which module reads the weights of which name, and a fixed input on which each must work."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable

import jax
import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE
from fg3dgs_jax.weights import variables


@dataclasses.dataclass(frozen=True)
class Network:
    """How `check` and `convert` treat one row of the registry."""

    module: str  # below fg3dgs_jax; it has `load(path)`
    run: Callable  # (module, what `read` gave) -> array
    shape: tuple  # of that array; None where it may be anything
    read: Callable = lambda module, path: module.load(path)
    to_save: Callable | None = read  # nested dicts that `read` takes back from an npz
    golden: float | None = None  # of the array's one number, to 1e-4 of it
    needs: str = ""  # a package that may not be installed


class _Wrong(ValueError):
    """Weights that load but do not do what they should."""


def check(name: str, path: os.PathLike | str) -> str:
    """Loads the weights and runs the network once; what it found, in a few words.

    Raises:
      ValueError: the file is of another network, or the result is not finite, of another shape, or
        not the published number.
      ImportError: a package that reads or runs the network is not installed.
    """
    network = NETWORKS[name]
    if network.needs and importlib.util.find_spec(network.needs) is None:
        raise ImportError(f"{network.needs} is not installed")
    module = importlib.import_module(f"fg3dgs_jax.{network.module}")
    loaded = network.read(module, path)
    count = 0
    for leaf in jax.tree.leaves(loaded):
        if isinstance(leaf, np.ndarray | jax.Array):
            count += leaf.size
            if not np.isfinite(leaf).all():
                raise _Wrong(f"the weights of {name} are not finite")
    result = np.asarray(network.run(module, loaded))
    if len(result.shape) != len(network.shape) or any(
        want not in (None, size) for want, size in zip(network.shape, result.shape, strict=True)
    ):
        raise _Wrong(f"{name} gives shape {result.shape}; expected {network.shape}")
    if not np.isfinite(result).all():
        raise _Wrong(f"{name} gives values that are not finite")
    amount = f"{count / 1e6:.2f} M numbers, " if count else ""
    if network.golden is None:
        return f"{amount}runs: {list(result.shape)}"
    if abs(float(result.squeeze()) - network.golden) > 1e-4 * network.golden:
        raise _Wrong(f"{name} gives {float(result.squeeze()):.6f}; published is {network.golden}")
    return f"{amount}gives the published {network.golden}"


def read_for_conversion(name: str, path: os.PathLike | str) -> dict:
    """Nested dicts of arrays, as `variables.save` takes them.

    Raises:
      ValueError: the network's own file is already in the form that is read.
    """
    network = NETWORKS.get(name)
    if network is None or network.to_save is None:
        raise ValueError(f"{name} is used in its published form; there is nothing to convert")
    module = importlib.import_module(f"fg3dgs_jax.{network.module}")
    return network.to_save(module, path)


def _noise(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def _frame(size):
    return (255 * _noise(size, size, 3)).astype(np.uint8)


def _second():
    return 0.2 * (_noise(SAMPLE_RATE) - 0.5)


def _golden_lpips(module, params):
    rng = np.random.default_rng(0)
    a = 2 * rng.random((64, 64, 3)) - 1
    b = 0.5 * a + 0.5 * (2 * rng.random((64, 64, 3)) - 1)
    return module.lpips(params, *((x[None].astype(np.float32) + 1) / 2 for x in (a, b)))


def _two_towers(embed_faces, faces, sound):
    """The embeddings of one window of faces and of one of sound, of these shapes."""

    def run(module, loaded):
        lips = getattr(module, embed_faces)(loaded, _noise(1, *faces))
        return np.concatenate([lips, module.embed_sound(loaded, _noise(1, *sound))])

    return run


def _in_place(module, path):
    """For what another runtime loads from the file itself."""
    del module
    return path


def _wav2vec2(letters, width):
    """A second of sound gives 49 rows of letters, or of the last hidden state."""

    def run(module, model):
        from fg3dgs_jax.experts.audio import wav2vec2_features

        del module
        output = "logits" if letters else "hidden"
        return wav2vec2_features.encode(
            model.params, model.config, _second(), mode="full", output=output
        )

    return Network(
        "experts.audio.wav2vec2_checkpoint",
        run,
        (49, width),
        read=lambda module, path: module.load(path, letters),
        to_save=lambda module, path: variables.load(path, module.convert),
    )


def _mediapipe(module, run, shape):
    return Network(module, run, shape, read=_in_place, to_save=None, needs="mediapipe")


def _emotieff(module, network):
    return module.run(network, module.crops(network, _frame(64), [[0, 64, 0, 64]])).features


NETWORKS = {
    "face_landmarker": _mediapipe(
        "experts.face.face_landmarker", lambda m, path: m.detect(path, [_frame(64)]).num_faces, (1,)
    ),
    "selfie_segmenter": _mediapipe(
        "experts.face.segmenter", lambda m, path: next(m.segment(path, [_frame(64)])), (64, 64)
    ),
    "selfie_multiclass": _mediapipe(
        "experts.face.selfie_multiclass",
        lambda m, path: next(m.segment(path, [_frame(64)])),
        (64, 64, 6),
    ),
    "bisenet": Network(
        "experts.face.bisenet", lambda m, v: m.logits(v, _frame(64)[None]), (1, 64, 64, 19)
    ),
    "easyportrait": Network(
        "experts.face.easyportrait", lambda m, v: m.logits(v, _frame(64)[None]), (1, 64, 64, 8)
    ),
    "fer_emotion": Network(
        "experts.face.fer", lambda m, v: m.emotions(v, _noise(1, 64, 64, 1)), (1, 7), needs="h5py"
    ),
    "emotieff": Network(
        "experts.face.emotieff", _emotieff, (1, 1280), to_save=None, needs="onnxruntime"
    ),
    "whisper_tiny_en": Network(
        "experts.audio.whisper",
        lambda m, params: m.encode(params, _second()),
        (50, 384),
        to_save=None,
    ),
    "deepspeech": Network(
        "experts.audio.deepspeech", lambda m, v: m.features(v, _second(), FPS), (FPS, 16, 29)
    ),
    "wav2vec2_esperanto": _wav2vec2(letters=True, width=44),
    "wav2vec2_base": _wav2vec2(letters=True, width=32),
    "hubert_large": _wav2vec2(letters=False, width=1024),
    "hubert_base": _wav2vec2(letters=False, width=768),
    "ave": Network("experts.audio.ave", lambda m, v: m.features(v, _second(), FPS), (FPS, 1, 512)),
    "wav2lip": Network(
        "experts.lips.wav2lip", _two_towers("embed_faces", (48, 96, 15), (80, 16)), (2, 512)
    ),
    "syncnet_v2": Network(
        "experts.lips.syncnet", _two_towers("embed_lips", (5, 224, 224, 3), (13, 20)), (2, 1024)
    ),
    "s3fd": Network("experts.face.s3fd", lambda m, v: m.detect(v, _frame(128)), (None, 5)),
    "s3fd_syncnet": Network("experts.face.s3fd", lambda m, v: m.detect(v, _frame(512)), (None, 5)),
    "fan_2d4": Network(
        "experts.face.fan", lambda m, v: m.landmarks(v, _frame(128), (32, 32, 96, 96)), (68, 2)
    ),
    "lpips_alex": Network(
        "experts.image.lpips", _golden_lpips, (1,), to_save=None, golden=0.076525
    ),
    "lpips_vgg": Network("experts.image.lpips", _golden_lpips, (1,), to_save=None, golden=0.230095),
    "fid_inception": Network(
        "experts.image.inception", lambda m, v: m.features(v, _noise(1, 96, 96, 3)), (1, 2048)
    ),
}
