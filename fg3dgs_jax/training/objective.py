"""The loss of a step: what a stage draws, the views that its terms look at, and their sum."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.config import Config, Stage
from fg3dgs_jax.config.defaults import Draws
from fg3dgs_jax.training import batches, guides, losses, masks
from fg3dgs_jax.types import REGIONS, Array, Batch


class Networks(NamedTuple):
    """The pretrained nets that terms ask, as functions; None where there are no weights."""

    perceptual: Callable[[Array, Array], Array] | None = None  # [K, side, side, 3] twice -> [K]
    sync: Callable[[Array, Array], Array] | None = None  # (frames [B, 5, H, W, 3], [B]) -> []


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that is fixed while the steps of a dispatch run."""

    config: Config
    stage: Stage
    number: int  # the stage's place in the order
    nets: Mapping[str, nn.Module]  # motion net of each region
    networks: Networks
    size: tuple[int, int]  # height, width of a frame, px
    capacities: Mapping[str, int] = dataclasses.field(default_factory=dict)  # lists of pairs
    # Of a dispatch, see `feed.Span`: whether LPIPS has begun, and density control follows.
    lpips: bool = True
    controls: bool = True

    @property
    def moves(self) -> bool:
        """Whether the motion nets take part."""
        return self.stage.moves and self.config.moves

    @property
    def frames(self) -> int:
        """Frames a step and device, of each layer."""
        return self.config.batch * self.stage.window


class Drawn(NamedTuple):
    """What a frame, drawn and judged, gives besides its loss."""

    metrics: dict[str, Array]  # scalars
    radii: dict[str, Array]  # [N, 2] px of each region
    windows: (
        tuple[Array, Array] | None
    )  # (drawn, filmed) [H, W, 3], where all regions share a frame


def key_color(config: Config, key: Array) -> Array:
    """The colour [3] behind a layer in its own stages; key: consumed.

    One that changes from step to step cannot be learnt, so a layer can only match it by being clear
    there. A fixed one is sometimes painted instead and has to be pruned.
    """
    if config.key_color is None:
        return jax.random.uniform(key, (3,))
    return jnp.array(config.key_color)


def frame_loss(
    setup: Setup,
    regions: Any,
    alive: Any,
    probes: Any,
    frames: Mapping[str, Batch],
    key: Array,
    step: Array,
) -> tuple[Array, Drawn]:
    """Loss of one frame a region, or of the one frame that all regions share.

    Args:
      setup: of the stage.
      regions: {region: Region}, the parameters.
      alive: {region: [N] bool}.
      probes: {region: [N, 2] zeros}, for the gradients that density control reads.
      frames: {region: Batch}; the face's where they share one.
      key: consumed.
      step: of the stage.
    """
    draw_and_view = _whole_frame if setup.stage.draws == Draws.FRAME else _layers
    views, drawn = draw_and_view(setup, regions, alive, probes, frames, key, step)
    loss, metrics = jnp.zeros(()), {}
    for prefix, view in views.items():
        part, terms = weigh(setup.stage, view)
        loss = loss + part
        metrics |= {prefix + name: term for name, term in terms.items()}
    return loss, drawn._replace(metrics=metrics | drawn.metrics)


@jax.named_scope("losses")
def weigh(stage: Stage, view: losses.View) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of a view's terms, and the terms themselves."""
    terms = {}
    for name, term in losses.TERMS.items():
        value = term(view) if getattr(stage.losses, name) else None
        if value is not None:
            terms[name] = value
    return jnp.asarray(sum(getattr(stage.losses, n) * t for n, t in terms.items())), terms


def _layers(setup, regions, alive, probes, frames, key, step):
    """Eqs. (3) and (13): each region alone over the key colour, on a frame of its own."""
    config, stage = setup.config, setup.stage
    nets = setup.nets if setup.moves else None
    height, width = setup.size
    views, metrics, radii = {}, {}, {}
    for r in config.regions:
        batch = frames[r]
        key_c, key_r = jax.random.split(jax.random.fold_in(key, REGIONS.index(r)))
        color = key_color(config, key_c)
        options = draw.DrawOptions(
            width,
            height,
            background=color,
            with_gates=bool(nets and r == "face" and stage.losses.attention),
            probe=probes[r],
            capacity=setup.capacities.get(r),
        )
        conditions = draw.conditions_of(r, nets, regions, batch.conditions)
        net = nets[r] if nets else None
        layer = draw.draw_layer(net, regions[r], alive[r], conditions, batch.camera, options)
        view = _layer_view(setup, r, layer, color, batch, key_r, step)
        views[f"{r}/"] = view._replace(alive=alive[r])
        metrics |= list_metrics(r, layer)
        radii[r] = layer.aux.radii
    return views, Drawn(metrics, radii, None)


@jax.named_scope("losses")
def _layer_view(setup, region, layer, color, batch, key, step):
    stage = setup.stage
    shown, ignored, fill = masks.region_masks(
        region,
        masks.region_labels(setup.config)[region],
        batch,
        getattr(setup.config.gaussians, region).dilate,
        step % stage.hair_every == 0,
    )
    return losses.View(
        image=jnp.where(ignored[..., None], color, layer.image),
        truth=jnp.where(shown[..., None] & ~ignored[..., None], batch.image, color),
        batch=batch,
        key=key,
        progress=step / stage.steps,
        patches=stage.patches,
        perceptual=setup.networks.perceptual,
        late=setup.lpips,
        region=region,
        layer=layer,
        ignored=ignored,
        fill=fill,
    )


def _whole_frame(setup, regions, alive, probes, frames, key, step):
    """Eq. (15): all regions over the real background."""
    stage, batch = setup.stage, frames["face"]
    options = draw.FrameOptions(
        twice=stage.window > 1 and not stage.sync_paints,
        probes=probes,
        capacities=setup.capacities,
    )
    image, layers = draw.draw(
        setup.nets if setup.moves else None,
        regions,
        alive,
        batch.conditions,
        batch.camera,
        batch.background,
        options,
    )
    image, watched = image[..., :3], image[..., -3:]
    view = losses.View(
        image,
        batch.image,
        batch,
        key,
        progress=step / stage.steps,
        patches=stage.patches,
        perceptual=setup.networks.perceptual,
        late=setup.lpips,
    )
    metrics = {"psnr": losses.psnr(image, batch.image)}
    for r, layer in layers.items():
        metrics |= list_metrics(r, layer)
    radii = {r: layer.aux.radii for r, layer in layers.items()}
    return {"": view}, Drawn(metrics, radii, (watched, batch.image))


def list_metrics(region: str, layer: draw.Layer) -> dict[str, Array]:
    """How many (tile, Gaussian) pairs a layer needed, and whether the GPU's list was shorter."""
    return {f"{region}/isects": layer.aux.n_isects, f"{region}/overflow": layer.aux.overflow}


class StepView(NamedTuple):
    """What a term of a whole step may look at."""

    setup: Setup
    regions: Any  # {region: Region}
    clip: batches.DeviceClip
    key: Array  # consumed by the one term that draws frames
    windows: tuple[Array, Array] | None  # (drawn, filmed) [B x window, H, W, 3]
    index: Mapping[str, Array]  # frame numbers [B x window] by region


@jax.named_scope("alignment")
def sync(view: StepView) -> tuple[Array, dict[str, Array]] | None:
    """L_lip of eq. (16); as metric also its ceiling, the expert's score of the filmed frames."""
    setup, expert = view.setup, view.setup.networks.sync
    if expert is None or view.windows is None or setup.stage.window == 1:
        return None
    batch, window = setup.config.batch, setup.stage.window
    drawn, filmed = (x.reshape(batch, window, *x.shape[1:]) for x in view.windows)
    starts = view.index["face"][::window]
    ceiling = jax.lax.stop_gradient(expert(filmed, starts))
    return expert(drawn, starts), {"sync_truth": ceiling}


@jax.named_scope("guides")
def lead(view: StepView) -> tuple[Array, dict[str, Array]] | None:
    """Landmarks lead the motion nets (ours), see `guides.py`."""
    setup = view.setup
    if not setup.moves:
        return None
    frames = batches.guide_frames(view.key, view.clip, setup.config.guides)
    terms = [
        guides.guides_loss(setup.nets[r], view.regions[r].motion, rows, *frames)
        for r, rows in guides.guided(setup.config).items()
    ]
    return jnp.asarray(sum(terms)), {}


# name in `config.Losses` -> StepView -> (scalar, further metrics), or None.
STEP_TERMS: dict[str, Callable[[StepView], tuple[Array, dict[str, Array]] | None]] = {
    "sync": sync,  # eq. (16)
    "guides": lead,
}


def step_loss(view: StepView) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of a step's own terms, and their metrics."""
    loss, metrics = jnp.zeros(()), {}
    for name, term in STEP_TERMS.items():
        weight = getattr(view.setup.stage.losses, name)
        result = term(view) if weight else None
        if result is not None:
            value, more = result
            loss, metrics = loss + weight * value, metrics | {name: value} | more
    return loss, metrics
