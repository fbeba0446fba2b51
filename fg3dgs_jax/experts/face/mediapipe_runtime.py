"""The one place that imports mediapipe: an optional extra, loaded when first used."""

import types


class MediaPipeMissing(ValueError):
    """mediapipe is not installed or does not load; one line that says what to do."""


def load():
    """Returns (mediapipe, tasks): tasks holds `BaseOptions` and `vision`."""
    try:
        import mediapipe
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is absent
        raise MediaPipeMissing(
            f"mediapipe cannot be imported ({error}); preprocessing a video needs it: "
            "pip install -e '.[preprocess]'"
        ) from None
    return mediapipe, types.SimpleNamespace(BaseOptions=tasks.BaseOptions, vision=vision)
