"""The "Obama" clip: the paper's setting, and the same clip sized for two CPU cores.

python -m fg3dgs_jax.preprocess --video obama.mp4 --out data/obama --consent research
python -m fg3dgs_jax.train --config configs/obama.py               # the paper: 60,000 steps
python -m fg3dgs_jax.train --config configs/obama.py:tuned,small   # half resolution, two CPU cores
python -m fg3dgs_jax.train --config configs/obama.py:static        # motion networks off
python -m fg3dgs_jax.train --config configs/obama.py:quick         # the most telling 10 s, a trial
python -m fg3dgs_jax.train --config configs/obama.py:tuned,small,no_fam  # an ablation

The names are those of fg3dgs_jax/config/methods.py.
"""

from fg3dgs_jax import config as config_lib
from fg3dgs_jax.config.defaults import Data


def get_config(variant: str = "") -> config_lib.Config:
    """The paper's setting, or the one that the variant names."""
    config = config_lib.get_config(variant, "obama")
    config.data.path = "data/obama"
    if config.data.audio_extractor == Data.audio_extractor and "audio=" not in variant:
        config.data.audio_extractor = "whisper"
    return config
