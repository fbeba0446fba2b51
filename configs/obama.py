"""The "Obama" clip: the paper's setting, and the same method sized for two CPU cores.

python -m fg3dgs_jax.preprocess --video obama.mp4 --out data/obama --consent research
python -m fg3dgs_jax.train --config configs/obama.py          # the paper's 3k + 47k + 10k steps
python -m fg3dgs_jax.train --config configs/obama.py:cpu      # half resolution, two CPU cores
python -m fg3dgs_jax.train --config configs/obama.py:static   # as cpu, motion networks off
"""

import ml_collections

from configs import default
from configs.cpu import sized_for_cpu


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant not in ("", "cpu", "static"):
        raise ValueError(f"variant is {variant!r}; configs/obama.py has 'cpu' and 'static'")
    config = default.get_config()
    if variant:
        config = sized_for_cpu(static=800, motion=9000, fusion=800)
        config.data.scale = 0.5
        config.moves = variant == "cpu"
    config.name = "obama" + (f"_{variant}" if variant else "")
    config.data.path = "data/obama"
    config.data.audio_extractor = "whisper"
    return config
