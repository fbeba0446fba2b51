"""The trained thing: three regions and a background to one frame (eq. 14).

Training, evaluation and synthesis all draw through `draw_layer` and `composite`: one code path.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fg3dgs_jax.geometry import short_spread
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.models import motion as motion_lib
from fg3dgs_jax.rasterizer import RasterAux, render
from fg3dgs_jax.rasterizer.sh import eval_sh
from fg3dgs_jax.types import REGIONS, Array, Camera, Conditions, GaussianDeltas, Gaussians

BACK_TO_FRONT = ("eyes", "mouth", "face")


class Region(NamedTuple):
    """What is learnt of one region."""

    gaussians: Gaussians
    motion: Any  # variables of the region's motion net


class Layer(NamedTuple):
    """One region, drawn alone."""

    image: Array  # [H, W, 3] premultiplied, over black or the background asked for; 6 if `twice`
    alpha: Array  # [H, W]
    gates: Array | None  # [H, W, 2] rendered audio and expression gates (eq. 6 and 10)
    deltas: GaussianDeltas | None
    aux: RasterAux  # radii [N, 2] px, 0 where culled; how long a list the picture needed


class Frame(NamedTuple):
    """A drawn frame with its layers; leading [B] from `Avatar.draw`."""

    image: Array  # [H, W, 3]
    layers: dict[str, Array]  # premultiplied [H, W, 3] of each region
    alphas: dict[str, Array]  # [H, W] of each region
    overflow: Array  # [] bool: a GPU's list was too short, far Gaussians are missing


class Picture(NamedTuple):
    """What is left of a Frame where only the picture is wanted."""

    image: Array  # uint8 [H, W, 3]
    overflow: Array


def make_nets(config):
    """{region: motion net} of the layers of a config."""
    return {region: motion_lib.make_motion_net(region, config.model) for region in config.layers}


def conditions_of(region, nets, regions, conditions):
    """What drives a region: the mouth may also follow the lips, which the face's net moves."""
    if not nets or region != "mouth":
        return conditions
    return motion_lib.lip_motion(
        nets["face"], regions["face"].motion, regions["mouth"].motion, conditions
    )


def draw_layer(
    net, region: Region, alive, conditions, camera, *, width, height, background=None,
    with_gates=False, twice=False, probe=None, capacity=None,
):  # fmt: skip
    """One region under one camera; `net` None leaves it static (eq. 3). Differentiable.

    `background` [3]: drawn over that colour. `with_gates`: also where each condition is listened
    to, two more channels of the same pass; it needs a net. `twice`: the image has six channels, the
    same colours again without gradient to them, so that a loss of these moves and does not paint.
    `capacity`: the rasterizer's `isect_capacity`.
    """
    deltas = None
    gaussians = region.gaussians
    if net is not None:
        deltas, gates = net.apply(region.motion, gaussians.means, conditions)
    drawn = gaussians_lib.activate(gaussians, deltas, alive)
    degree = round(drawn.sh.shape[-2] ** 0.5) - 1
    colors = _colors(drawn, camera, degree)
    if with_gates:
        colors = jnp.concatenate([colors, jnp.stack([gates.audio, gates.expression], -1)], -1)
        background = background if background is None else jnp.pad(background, (0, 2))
    if twice:
        colors = jnp.concatenate([colors, jax.lax.stop_gradient(colors)], -1)
    out = render(
        drawn.means, drawn.quats, drawn.scales, drawn.opacities, colors, camera,
        width=width, height=height, background=background, means2d_probe=probe,
        isect_capacity=capacity,
    )  # fmt: skip
    image = out.image[..., :3] if with_gates else out.image
    gate_image = out.image[..., 3:] if with_gates else None
    return Layer(image, out.alpha, gate_image, deltas, out.aux)


@jax.named_scope("colors")
def _colors(drawn, camera, degree):
    pose = camera.world_to_camera
    center = -pose[:3, :3].T @ pose[:3, 3]
    return eval_sh(drawn.sh, drawn.means - center, degree)


@jax.named_scope("composite")
def composite(layers: dict[str, Layer], background):
    """Eq. (14) in premultiplied colours: face over mouth over eyes over the real background."""
    image = background  # [H, W, 3], or twice that where the layers have six channels
    for region in BACK_TO_FRONT:
        if region not in layers:  # its pixels belong to the face's layer
            continue
        clear = short_spread(1.0 - layers[region].alpha, -1, image.shape[-1])
        image = layers[region].image + clear * image
    return image


def draw(
    nets, regions, alive, conditions, camera, background, *, twice=False, probes=None,
    capacities=None,
):  # fmt: skip
    """All layers under one camera over `background` [H, W, 3] -> (Frame image, layers); `twice`: as
    in `draw_layer`, [H, W, 6].
    """
    height, width = background.shape[:2]
    layers = {}
    for r in regions:
        told = conditions_of(r, nets, regions, conditions)
        layers[r] = draw_layer(
            nets and nets[r], regions[r], alive[r], told, camera,
            width=width, height=height, twice=twice, probe=probes and probes[r],
            capacity=(capacities or {}).get(r),
        )  # fmt: skip
    return composite(layers, jnp.tile(background, 1 + twice)), layers


class Avatar:
    """A trained avatar: `draw` turns conditions, cameras and backgrounds into frames."""

    def __init__(self, config, regions, alive):
        self.config = config
        self.regions = regions
        self.alive = alive
        nets = make_nets(config) if config.moves else None

        def one(regions, alive, audio, expression, camera, background):
            conditions = Conditions(audio, expression)
            if background.dtype == jnp.uint8:
                background = background.astype(jnp.float32) / 255.0
            image, layers = draw(nets, regions, alive, conditions, camera, background)
            # A region without a layer of its own is clear: its pixels belong to the face's.
            black = jnp.zeros_like(image)
            return Frame(
                jnp.clip(image, 0.0, 1.0),
                {r: layers[r].image if r in layers else black for r in REGIONS},
                {r: layers[r].alpha if r in layers else black[..., 0] for r in REGIONS},
                jnp.any(jnp.stack([layer.aux.overflow for layer in layers.values()])),
            )

        def picture(*arguments):
            frame = one(*arguments)
            return Picture(jnp.round(frame.image * 255.0).astype(jnp.uint8), frame.overflow)

        axes = (None, None, 0, 0, 0, 0)
        self._draw = jax.jit(jax.vmap(one, in_axes=axes))
        self._pictures = jax.jit(jax.vmap(picture, in_axes=axes))

    def draw(self, audio, expression, camera: Camera, background) -> Frame:
        """B frames: audio [B, 8, A, D], expression [B, E], Camera of [B], background
        [B, H, W, 3], uint8 or in [0, 1].
        """
        inputs = jax.tree.map(jnp.asarray, (audio, expression, camera, background))
        return self._draw(self.regions, self.alive, *inputs)

    def draw_pictures(self, audio, expression, camera: Camera, background) -> Picture:
        """As `draw`, without the layers."""
        inputs = jax.tree.map(jnp.asarray, (audio, expression, camera, background))
        return self._pictures(self.regions, self.alive, *inputs)
