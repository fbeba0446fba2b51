"""A trained avatar: three regions and a background become one frame (eq. 14).

Training, evaluation and synthesis all draw through `draw_layer` and `composite`: one code path.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Float

from fg3dgs_jax.avatar.controls import Controls
from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.config import Config
from fg3dgs_jax.geometry import short_spread
from fg3dgs_jax.media import video
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.models import motion as motion_lib
from fg3dgs_jax.rasterizer import RasterAux, render
from fg3dgs_jax.rasterizer.sh import view_colors
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


@dataclasses.dataclass(frozen=True)
class DrawOptions:
    """How `draw_layer` draws a region.

    Attributes:
      width, height: px.
      background: [3], the colour behind the region; None is black.
      with_gates: also draws where each condition has an influence, as two more channels of the
        same pass. It needs a motion net.
      twice: the image has six channels, the same colours again without a gradient to them. A loss
        of those moves the Gaussians and does not paint them.
      probe: [N, 2] zeros that are added to the projected means, to take a gradient of.
      capacity: the rasterizer's `isect_capacity`; None is its default.
    """

    width: int
    height: int
    background: Array | None = None
    with_gates: bool = False
    twice: bool = False
    probe: Array | None = None
    capacity: int | None = None


@dataclasses.dataclass(frozen=True)
class FrameOptions:
    """How `draw` draws all regions: `twice` and, by region, what `DrawOptions` holds of one."""

    twice: bool = False
    probes: Mapping[str, Array] | None = None
    capacities: Mapping[str, int] | None = None


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


def make_nets(config: Config) -> dict[str, nn.Module]:
    """Returns the motion net of each region that a config draws."""
    return {region: motion_lib.make_motion_net(region, config.model) for region in config.regions}


def conditions_of(
    region: str,
    nets: Mapping[str, nn.Module] | None,
    regions: Mapping[str, Region],
    conditions: Conditions,
) -> Conditions:
    """Returns what drives a region: the mouth may also follow the lips, which the face's net moves.

    Args:
      region: its name.
      nets: motion net of each region, or None where all are static.
      regions: what is learnt of each region.
      conditions: what drives the frame.
    """
    if not nets or region != "mouth":
        return conditions
    return motion_lib.lip_motion(
        nets["face"], regions["face"].motion, regions["mouth"].motion, conditions
    )


def draw_layer(
    net: nn.Module | None,
    region: Region,
    alive: Array,
    conditions: Conditions,
    camera: Camera,
    options: DrawOptions,
) -> Layer:
    """Draws one region under one camera; differentiable.

    Args:
      net: the region's motion net, or None where it is static (eq. 3).
      region: what is learnt of the region.
      alive: bool [N], the slots that hold a Gaussian.
      conditions: what drives the region, without a batch dimension (see `conditions_of`).
      camera: without a batch dimension.
      options: size and variants of the picture.
    """
    deltas, gates = None, None
    gaussians = region.gaussians
    if net is not None:
        moved: Any = net.apply(region.motion, gaussians.means, conditions)
        deltas, gates = moved
    drawn = gaussians_lib.activate(gaussians, deltas, alive)
    degree = round(drawn.sh.shape[-2] ** 0.5) - 1
    # Not by render(sh_degree=..): the gates and the second copy of the colours are channels beside.
    with jax.named_scope("colors"):
        colors = view_colors(drawn.sh, drawn.means, camera, degree)
    background = options.background
    if options.with_gates:
        if gates is None:
            raise ValueError("a static region has no gates; expected with_gates=False or a net")
        colors = jnp.concatenate([colors, jnp.stack([gates.audio, gates.expression], -1)], -1)
        background = background if background is None else jnp.pad(background, (0, 2))
    if options.twice:
        colors = jnp.concatenate([colors, jax.lax.stop_gradient(colors)], -1)
    out = render(
        drawn.means,
        drawn.quats,
        drawn.scales,
        drawn.opacities,
        colors,
        camera,
        width=options.width,
        height=options.height,
        background=background,
        means2d_probe=options.probe,
        isect_capacity=options.capacity,
    )
    image = out.image[..., :3] if options.with_gates else out.image
    gate_image = out.image[..., 3:] if options.with_gates else None
    return Layer(image, out.alpha, gate_image, deltas, out.aux)


@jax.named_scope("composite")
def composite(
    layers: Mapping[str, Layer], background: Float[Array, "h w c"]
) -> Float[Array, "h w c"]:
    """Composites face over mouth over eyes over the real background (eq. 14).

    Args:
      layers: premultiplied layer of each region.
      background: [H, W, 3], or [H, W, 6] where the layers have six channels.
    """
    image = background
    for region in BACK_TO_FRONT:
        if region not in layers:  # its pixels belong to the face's layer
            continue
        clear: Any = short_spread(1.0 - layers[region].alpha, -1, image.shape[-1])
        image = layers[region].image + clear * image
    return image


def draw(
    nets: Mapping[str, nn.Module] | None,
    regions: Mapping[str, Region],
    alive: Mapping[str, Array],
    conditions: Conditions,
    camera: Camera,
    background: Array,
    options: FrameOptions = FrameOptions(),
) -> tuple[Array, dict[str, Layer]]:
    """Draws every region under one camera and composites them (eq. 14); differentiable.

    Args:
      nets: motion net of each region, or None where all are static.
      regions: what is learnt of each region.
      alive: bool [N] of each region, the slots that hold a Gaussian.
      conditions: what drives the frame, without a batch dimension.
      camera: without a batch dimension.
      background: [H, W, 3] in [0, 1].
      options: variants of the picture.

    Returns:
      The picture [H, W, 3], or [H, W, 6] where `options.twice`, and the layer of each region.
    """
    height, width = background.shape[:2]
    layers = {}
    for r in regions:
        layer_options = DrawOptions(
            width,
            height,
            twice=options.twice,
            probe=options.probes[r] if options.probes else None,
            capacity=options.capacities.get(r) if options.capacities else None,
        )
        layers[r] = draw_layer(
            nets[r] if nets else None,
            regions[r],
            alive[r],
            conditions_of(r, nets, regions, conditions),
            camera,
            layer_options,
        )
    return composite(layers, jnp.tile(background, 1 + options.twice)), layers


class _Eased(NamedTuple):
    """A motion net of which what sound moves goes a part of its way, or further than it."""

    net: nn.Module
    gain: Array  # []
    silence: Array  # [8, A, D]

    def apply(self, variables: Any, means: Array, conditions: Conditions) -> Any:
        """Moves between where silence has the Gaussians and where the sound has them."""
        moved, gates = cast(Any, self.net.apply(variables, means, conditions))
        quiet, _ = cast(
            Any, self.net.apply(variables, means, conditions._replace(audio=self.silence))
        )
        return jax.tree.map(lambda a, b: b + self.gain * (a - b), moved, quiet), gates


class Avatar:
    """A trained avatar: it speaks a sound, or draws frames from conditions and cameras.

    Attributes:
      config: the resolved config of its training.
      regions: what was learnt of each region.
      alive: bool [N] of each region, the slots that hold a Gaussian.
    """

    def __init__(self, config: Config, regions: dict[str, Region], alive: dict[str, Array]):
        self.config = config
        self.regions = regions
        self.alive = alive
        nets = make_nets(config) if config.moves else None

        def one(
            regions: dict[str, Region],
            alive: dict[str, Array],
            audio: Array,
            expression: Array,
            camera: Camera,
            background: Array,
            ease: Any = None,
        ) -> Frame:
            conditions = Conditions(audio, expression)
            eased: Any = nets
            if nets is not None and ease is not None:
                eased = {r: _Eased(net, *ease) for r, net in nets.items()}
            if background.dtype == jnp.uint8:
                background = background.astype(jnp.float32) / 255.0
            image, layers = draw(eased, regions, alive, conditions, camera, background)
            # A region without a layer of its own is clear: its pixels belong to the face's.
            black = jnp.zeros_like(image)
            return Frame(
                jnp.clip(image, 0.0, 1.0),
                {r: layers[r].image if r in layers else black for r in REGIONS},
                {r: layers[r].alpha if r in layers else black[..., 0] for r in REGIONS},
                jnp.any(jnp.stack([layer.aux.overflow for layer in layers.values()])),
            )

        def picture(*arguments: Any) -> Picture:
            frame = one(*arguments)
            return Picture(jnp.round(frame.image * 255.0).astype(jnp.uint8), frame.overflow)

        axes = (None, None, 0, 0, 0, 0)
        self._draw = jax.jit(jax.vmap(one, in_axes=axes))
        self._pictures = jax.jit(jax.vmap(picture, in_axes=axes))

        def moved(
            regions: dict[str, Region], alive: dict[str, Array], audio: Array, expression: Array
        ) -> dict[str, gaussians_lib.Drawable]:
            drawn, conditions = {}, Conditions(audio, expression)
            for r, region in regions.items():
                driven = conditions_of(r, nets, regions, conditions)
                net: Any = (nets or {})[r]
                deltas, _ = net.apply(region.motion, region.gaussians.means, driven)
                drawn[r] = gaussians_lib.activate(region.gaussians, deltas, alive[r])
            return drawn

        self._moved = jax.jit(moved)
        self._eased = jax.jit(jax.vmap(picture, in_axes=(*axes, (0, None))))

    def __repr__(self) -> str:
        """Returns one line with the regions and their numbers of Gaussians."""
        counts = ", ".join(f"{r}: {int(a.sum())}" for r, a in self.alive.items())
        return f"Avatar(Gaussians {{{counts}}})"

    def at_rest(self) -> dict[str, gaussians_lib.Drawable]:
        """Returns each region's Gaussians as they are stored, without motion."""
        return {
            name: gaussians_lib.activate(region.gaussians, None, self.alive[name])
            for name, region in self.regions.items()
        }

    def in_motion(
        self, audio: ArrayLike, expression: ArrayLike
    ) -> dict[str, gaussians_lib.Drawable]:
        """Returns each region's Gaussians in one frame.

        Args:
          audio: float [8, A, D], windows of the audio features.
          expression: float [E].
        """
        if not self.config.moves:
            return self.at_rest()
        return self._moved(self.regions, self.alive, *jax.device_put((audio, expression)))

    def speak(
        self,
        audio: os.PathLike[str] | str,
        *,
        split: str = "train",
        data: os.PathLike[str] | str | None = None,
    ) -> Iterator[np.ndarray]:
        """Yields the frames in which the avatar speaks a sound: uint8 [H, W, 3], 25 a second.

        The mouth follows the sound. Head poses, torso, background, blinks and gaze come from the
        clip that the avatar was trained on, played forwards and backwards.

        Args:
          audio: any audio or video file, of any length.
          split: the frames of the clip that lend the poses: train, test or all.
          data: the processed folder, or packed file, where it has moved since training.

        Raises:
          ValueError: the sound, the clip or the weights of the audio features cannot be read.
        """
        samples = video.read_audio(audio)
        return open_subject(self, data).speak(samples, audio, Controls(split=split)).frames

    def draw(
        self, audio: ArrayLike, expression: ArrayLike, camera: Camera, background: ArrayLike
    ) -> Frame:
        """Draws B frames with their layers.

        Args:
          audio: float [B, 8, A, D], windows of the audio features.
          expression: float [B, E].
          camera: a Camera with leading dimension B.
          background: [B, H, W, 3], uint8 or float in [0, 1].
        """
        inputs = jax.device_put((audio, expression, camera, background))
        return self._draw(self.regions, self.alive, *inputs)

    def draw_pictures(
        self,
        audio: ArrayLike,
        expression: ArrayLike,
        camera: Camera,
        background: ArrayLike,
        ease: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Picture:
        """Draws B frames without their layers; arguments as in `draw`, and a `play.Ease`."""
        inputs = jax.device_put((audio, expression, camera, background))
        if ease is None:
            return self._pictures(self.regions, self.alive, *inputs)
        gain, silence = jax.device_put(ease)
        return self._eased(self.regions, self.alive, *inputs, (gain, silence))
