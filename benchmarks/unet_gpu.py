"""SDXL's UNet alone on a GPU: kernels launched one by one, layers compiled, kernels recorded.

    python benchmarks/unet_gpu.py

Prints the milliseconds of a call (a median) and how long the CPU takes to queue its kernels: where
the two are alike the card waits for Python. Compiling is within "took". `--tiny` takes a small
model, on a CPU too, where nothing can be recorded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from distillkit.recipe.schema import RunConfig
from distillkit.training.models.compiled import compile_networks

LARGE: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 128),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 64,
    "projection_class_embeddings_input_dim": 1600,
}


class Bench:
    """One UNet of SDXL's layout with random weights, and its inputs."""

    def __init__(self, sizes: dict[str, Any], device: str) -> None:
        self.sizes, self.device = sizes, torch.device(device)

    def unet(self, dtype: torch.dtype) -> Any:
        from diffusers import UNet2DConditionModel

        with self.device:
            network = UNet2DConditionModel(
                in_channels=4,
                out_channels=4,
                down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
                up_block_types=(*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
                layers_per_block=2,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                **self.sizes,
            )
        return network.to(dtype)

    def inputs(self, batch: int, dtype: torch.dtype) -> dict[str, Any]:
        """x_t (B, 4, H, W), a timestep each, a prompt of 77 tokens, a pooled prompt, six sizes."""
        side, width = self.sizes["sample_size"], self.sizes["cross_attention_dim"]
        pooled = self.sizes["projection_class_embeddings_input_dim"] - 6 * 256
        like: dict[str, Any] = {"device": self.device, "dtype": dtype}
        return {
            "sample": torch.randn(batch, 4, side, side, **like),
            "timestep": torch.full((batch,), 500.0, device=self.device),
            "encoder_hidden_states": torch.randn(batch, 77, width, **like),
            "added_cond_kwargs": {
                "text_embeds": torch.randn(batch, pooled, **like),
                "time_ids": torch.randn(batch, 6, **like),
            },
        }

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def show(self, name: str, call: Callable[[], Any], times: int = 8) -> None:
        """Print a call's time, and when and how long this took in all."""
        began = time.perf_counter()
        for _ in range(2):
            call()
        took, queued = [], []
        for _ in range(times):
            self.wait()
            start = time.perf_counter()
            call()
            queued.append(time.perf_counter() - start)
            self.wait()
            took.append(time.perf_counter() - start)
        print(
            f"{name}: {median(took) * 1e3:.1f} ms, {median(queued) * 1e3:.1f} to queue it "
            f"(took {time.perf_counter() - began:.0f} s)",
            flush=True,
        )


def forward(network: Any, inputs: dict[str, Any]) -> Callable[[], Tensor]:
    """A call without gradients, as a teacher's."""

    @torch.no_grad()
    def call() -> Tensor:
        output: Tensor = network(**inputs, return_dict=False)[0]
        return output

    return call


def to_input(network: Any, inputs: dict[str, Any]) -> Callable[[], Any]:
    """There and back to x_t, as through critics' backbones."""
    x_t = inputs["sample"].clone().requires_grad_()

    def call() -> Any:
        loss = network(**inputs | {"sample": x_t}, return_dict=False)[0].float().square().mean()
        return torch.autograd.grad(loss, x_t)

    return call


def to_weights(network: Any, inputs: dict[str, Any]) -> Callable[[], None]:
    """A student's, with checkpoints, weights of 32 bits and autocast."""
    weights = list(network.parameters())

    def call() -> None:
        with torch.autocast(inputs["sample"].device.type, torch.bfloat16):
            output = network(**inputs, return_dict=False)[0]
        output.float().square().mean().backward()
        for weight in weights:
            weight.grad = None

    return call


def recorded(bench: Bench, call: Callable[[], Tensor]) -> Callable[[], None]:
    """The call's kernels as one CUDA graph. Raises `RuntimeError` if its output is another."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()
    expected = call()
    graph.replay()
    bench.wait()
    if not torch.equal(output, expected):
        raise RuntimeError("what was recorded computes another output")
    return graph.replay


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tiny", action="store_true", help="a small model; works on a CPU")
    options.add_argument("--backend", default="inductor", help="what layers are compiled with")
    options.add_argument("--channels-last", action="store_true", help="the frozen UNet's layout")
    given = options.parse_args(words)
    cuda = torch.cuda.is_available()
    if not cuda and not given.tiny:
        raise SystemExit("SDXL's true size needs a GPU; --tiny takes a small model on a CPU")
    bench = Bench(SMALL if given.tiny else LARGE, "cuda" if cuda else "cpu")
    frozen = bench.unet(torch.bfloat16).eval().requires_grad_(False)
    trained = bench.unet(torch.float32).train()
    trained.enable_gradient_checkpointing()
    inputs = {batch: bench.inputs(batch, torch.bfloat16) for batch in (5, 10)}
    own = bench.inputs(5, torch.float32)
    if given.channels_last:
        frozen.to(memory_format=torch.channels_last)
        for each in inputs.values():
            each["sample"] = each["sample"].contiguous(memory_format=torch.channels_last)
    for how in ("one by one", "layers compiled"):
        for batch, given_inputs in inputs.items():
            call = forward(frozen, given_inputs)
            bench.show(f"{how}: forward, batch {batch}", call)
            if cuda:
                replay = recorded(bench, call)
                bench.show(f"{how}, recorded: forward, batch {batch}", replay)
        bench.show(f"{how}: to x_t, batch 5", to_input(frozen, inputs[5]), 4)
        bench.show(f"{how}: to weights, batch 5", to_weights(trained, own), 4)
        if how == "one by one":
            run = RunConfig(compile=given.backend)
            # On a CPU too, where a run leaves it out.
            compile_networks([frozen, trained], run, torch.device("cuda"))


if __name__ == "__main__":
    main()
