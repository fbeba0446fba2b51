"""A loss that is not finite stops the run, and is told by stage, step, region and term."""

import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.training import finite, loop, objective
from tests.painted import still


def metrics(**bad):
    each = {k: np.ones(5) for k in ("loss", "psnr", "face/l1", "mouth/alpha", "guides")}
    for name, step in bad.items():
        each[name.replace("_", "/")][step:] = np.nan
    return each


def test_the_first_step_and_its_terms_are_named():
    assert finite.first_fault(metrics()) is None
    assert finite.first_fault(metrics(psnr=0)) is None
    step, ((name, value),) = finite.first_fault(metrics(loss=2, mouth_alpha=2, face_l1=3))
    assert (step, name) == (2, "mouth/alpha") and np.isnan(value)
    step, ((name, _),) = finite.first_fault(metrics(loss=4))
    assert (step, name) == (4, "loss")
    told = (
        r"^stage motion, step 3413: mouth/alpha is nan; the last checkpoint \(step 3400\) is whole"
    )
    with pytest.raises(FloatingPointError, match=told):
        finite.check_losses(metrics(loss=2, mouth_alpha=2), "motion", 3410, 3400)


def test_a_state_that_is_not_finite_does_not_become_a_checkpoint():
    state = {"means": np.zeros(3), "alive": np.ones(3, bool)}
    finite.check_state(state, "static", 5, None)
    state["means"][1] = np.inf
    with pytest.raises(FloatingPointError, match=r"\['means'\] is not finite; no checkpoint"):
        finite.check_state(state, "static", 5, None)


def test_a_run_stops_at_the_poisoned_step(folder, tmp_path, monkeypatch):
    weigh = objective.weigh

    def poisoned(stage, view):
        loss, terms = weigh(stage, view)
        if view.region == "mouth":
            poison = jnp.where(jnp.round(view.progress * stage.steps) == 7, jnp.inf, 0.0)
            loss, terms = loss + poison, terms | {"d_ssim": terms["d_ssim"] + poison}
        return loss, terms

    monkeypatch.setattr(objective, "weigh", poisoned)
    told = r"stage static, step 8: mouth/d_ssim is inf; the last checkpoint \(step 5\) is whole"
    with pytest.raises(FloatingPointError, match=told):
        loop.fit(still(folder, static=15), tmp_path / "run")
