"""The embedded subject at 192 px: what scripts/quickstart.sh trains, on two CPU cores in minutes.

python scripts/make_subject.py --out data/quickstart
python -m fg3dgs_jax.train --config configs/quickstart.py

`:tiny` runs every stage in under a minute, to see that everything works.
"""

import ml_collections

from configs.cpu import sized_for_cpu


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant not in ("", "tiny"):
        raise ValueError(f"variant is {variant!r}; configs/quickstart.py has only 'tiny'")
    config = sized_for_cpu(static=600, motion=3000, fusion=600, alignment=0)
    config.name = "quickstart"
    config.data.path = "data/quickstart"
    config.regions.face.update(num=3000, capacity=5120, max_capacity=5120)
    config.regions.mouth.num = 600
    config.stages.fusion.losses.lpips = 0.0  # no pretrained network: nothing to download
    if variant == "tiny":
        config.name = "quickstart_tiny"
        config.data.max_side = 96
        config.stages.static.steps, config.stages.motion.steps = 100, 200
        config.stages.fusion.steps = 100
        config.log.checkpoint_every = config.log.samples_every = 100
    return config
