"""Networks of a pipeline on their device, or in main memory until they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillkit.values import Condition
from distillkit_diffusers.common import autoencoder
from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.common.quantized import bits_of, plain_copy, quantize

if TYPE_CHECKING:
    from distillkit_diffusers.choices import OffloadName
    from distillkit_diffusers.common.quantized import Bits

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
"""Components of a pipeline, of which a family has some."""


class PipelineNetworks:
    """The networks of a teacher's pipeline; families' teachers extend it."""

    pipe: Any
    device: Any = "cpu"
    offload: tuple[OffloadName, ...] = ()
    """Networks that are in main memory, and on the device only during their calls."""
    reload: Callable[[], Any] | None = None
    """Loads the denoiser's network again, unpacked."""

    _empty: Condition | None = None

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt."""
        raise NotImplementedError

    def encoded_null(self, count: int) -> Condition:
        """The encoders' output for the empty text, in `count` rows; it is worked out once."""
        device = self.pipe.text_encoder.device
        if self._empty is None:
            self._empty = self.encode([""])
        one = self._empty.to(device)
        return Condition({n: t.repeat(count, *[1] * (t.ndim - 1)) for n, t in one.tensors.items()})

    def denoisers(self) -> list[nn.Module]:
        """The network that is distilled."""
        raise NotImplementedError

    def quantize(self, bits: Bits, reload: Callable[[], Any] | None = None) -> None:
        """Pack the denoiser's linear layers in so many bits a weight. `reload`: loads it again."""
        self.reload = reload
        for network in self.denoisers():
            quantize(network, bits)

    def full_precision(self) -> Any:
        """The denoiser's network with the weights that were loaded: itself, unless it is packed.

        Where it can't be loaded again, as without weights, they are the unpacked ones.
        """
        [network] = self.denoisers()
        if bits_of(network) is None:
            return network
        return self.reload() if self.reload is not None else plain_copy(network)

    def modules(self) -> Sequence[nn.Module]:
        """The denoiser's network, the text encoders, the VAE."""
        return [*self.denoisers(), *self.named("text_encoders"), self.pipe.vae]

    def to(self, device: Any) -> None:
        """Move every network but the offloaded ones."""
        self.device = device
        offloaded = self.offloaded()
        for module in self.modules():
            if not any(module is other for other in offloaded):
                module.to(device)

    def offloaded(self) -> Sequence[nn.Module]:
        """Networks that are in main memory, and on the device only during their calls."""
        return [module for name in self.offload for module in self.named(name)]

    def named(self, name: OffloadName) -> list[nn.Module]:
        """The networks that a recipe's `offload` means by that name."""
        if name == "vae":
            return [self.pipe.vae]
        found = (getattr(self.pipe, encoder, None) for encoder in TEXT_ENCODERS)
        return [encoder for encoder in found if encoder is not None]

    @torch.no_grad()
    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures in [0, 1], float32: the mode of the VAE's posterior."""
        with self.on_device("vae"):
            return autoencoder.encode_images(self.pipe.vae, images_B3HW)

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1], float32; differentiable."""
        with self.on_device("vae"):
            return autoencoder.decode(self.pipe.vae, x_0_BCHW)

    @contextmanager
    def on_device(self, name: OffloadName) -> Iterator[None]:
        """Inside, the networks of that name are on the device even if they are offloaded, and are
        computed in their own number format."""
        networks = self.named(name)
        visitors = networks if name in self.offload else []
        with ExitStack() as stack:
            for module in visitors:
                stack.enter_context(visiting(module, self.device))
            for module in networks[:1]:
                weight = next(module.parameters())
                stack.enter_context(own_format(weight.dtype, weight.device))
            yield


@contextmanager
def visiting(module: nn.Module, device: Any) -> Iterator[None]:
    """Inside, a frozen network's weights are on the device. What is in main memory stays there, so
    that nothing is copied back; for CUDA it is pinned at the first visit, for faster copies."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.device != device]
    homes = [_pinned(t.data, device) for t in tensors]
    try:
        for tensor, home in zip(tensors, homes, strict=True):
            tensor.data = home.to(device, non_blocking=True)
        yield
    finally:
        for tensor, home in zip(tensors, homes, strict=True):
            tensor.data = home


def _pinned(values: Tensor, device: Any) -> Tensor:
    to_cuda = torch.device(device).type == "cuda" and values.device.type == "cpu"
    return values.pin_memory() if to_cuda and not values.is_pinned() else values
