"""SDXL's names: the published ones of its checkpoint, and what a file's names tell."""

from __future__ import annotations

import torch

from distillkit_diffusers.io.sdxl_files import SDXL_FILES
from distillkit_diffusers.io.tensor_names import unet_names, vae_names, what_is


def test_names_of_true_sdxl_are_the_published_ones() -> None:
    """Some well-known names of sd_xl_base_1.0.safetensors, and their number: 1680 in its UNet."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_FILES / "unet")
        )
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SDXL_FILES / "vae"))
    names = unet_names(unet.state_dict())
    assert len(set(names.values())) == len(names) == 1680
    for ours, theirs in {
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
        "down_blocks.2.resnets.0.conv_shortcut.bias": "input_blocks.7.0.skip_connection.bias",
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight": (
            "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight"
        ),
        "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
        "mid_block.resnets.1.time_emb_proj.weight": "middle_block.2.emb_layers.1.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.2.conv.weight",
        "up_blocks.2.resnets.2.norm2.weight": "output_blocks.8.0.out_layers.0.weight",
        "add_embedding.linear_2.bias": "label_emb.0.2.bias",
        "conv_out.weight": "out.2.weight",
    }.items():
        assert names[ours] == theirs
    names = vae_names(vae.state_dict())
    assert len(set(names.values())) == len(names) == 248
    assert (
        names["decoder.up_blocks.0.resnets.2.conv1.weight"] == "decoder.up.3.block.2.conv1.weight"
    )
    assert names["decoder.up_blocks.2.upsamplers.0.conv.bias"] == "decoder.up.1.upsample.conv.bias"
    assert (
        names["encoder.mid_block.attentions.0.to_out.0.weight"]
        == "encoder.mid.attn_1.proj_out.weight"
    )


def test_a_file_is_told_by_its_names() -> None:
    assert what_is(["encoder.conv_in.weight", "decoder.conv_in.weight"]) == "a VAE"
    assert what_is(["model.diffusion_model.input_blocks.0.0.weight"]).startswith("a UNet without")
    assert what_is(["cond_stage_model.transformer.x"]).startswith(
        "a checkpoint of Stable Diffusion 1"
    )
    assert what_is(["lora_unet_mid.lora_down.weight"]) == "a LoRA"
    assert what_is(["text_model.final_layer_norm.bias"]) == "a text encoder"
    assert what_is(["x"]) == "something else"
