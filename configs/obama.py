"""The "Obama" clip: the paper's setting, and the same method sized for two CPU cores.

python -m fg3dgs_jax.preprocess --video obama.mp4 --out data/obama --consent research
python -m fg3dgs_jax.train --config configs/obama.py          # the paper's 3k + 47k + 10k steps
python -m fg3dgs_jax.train --config configs/obama.py:cpu      # half resolution, two CPU cores
python -m fg3dgs_jax.train --config configs/obama.py:static   # as cpu, motion networks off
python -m fg3dgs_jax.train --config configs/obama.py:quick    # the most telling 10 s, for a trial
python -m fg3dgs_jax.train --config configs/obama.py:cpu,no_fam  # an ablation: configs/variants.py
"""

import ml_collections

from configs import default, variants
from configs.cpu import sized_for_cpu

FULL = dict(static=800, motion=9000, fusion=3200, alignment=400)
QUICK = dict(static=400, motion=2500, fusion=500, alignment=150)
SIZES = dict(cpu=FULL, static=FULL, quick=QUICK)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The paper's setting, or that of a name in SIZES, and any of `variants.NAMED`, by commas."""
    wanted = [v for v in variant.split(",") if v]
    size = next((v for v in wanted if v in SIZES), "")
    if size:
        config = sized_for_cpu(**SIZES[size])
        config.data.max_side = 256
        config.moves = size != "static"
        config.data.seconds = 10.0 if size == "quick" else 0.0
    else:
        config = default.get_config()
    config.name = "_".join(["obama", *(v.replace("=", "_") for v in wanted)])
    config.data.path = "data/obama"
    config.data.audio_extractor = "whisper"
    variants.apply(config, [v for v in wanted if v != size])
    if not config.moves:
        variants.no_hrpa(config)  # there is no net to align
    return config
