"""Students: what trains, where they start, and what they publish, run by stock diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit.training.models.student import Student
from distillkit_diffusers.export.exporters import FolderExporter, LoRAExporter, TransformerExporter
from tests.distillkit_diffusers.flow.published.pages import PROMPT, run_page
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny, draw, stock_pipeline
from tests.distillkit_diffusers.tiny import perturbed

EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
LAYER = {"z-image": "layers.1.attention.to_q", "flux2": "single_transformer_blocks.1.attn.to_out"}
"""A layer of each family that gets a LoRA."""


@pytest.fixture(scope="module", params=["euler", "renoise"])
def published(
    request: Any, tiny: Tiny, teacher: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Student, Path]:
    """A LoRA student that left the teacher, and its folder."""
    config = tiny.student.model_validate({"sampler": request.param, "train": "lora", "rank": 2})
    network: Any = perturbed(config.build(teacher))
    folder = tmp_path_factory.mktemp("published") / "student"
    network.publish(folder, 1000)
    return Student.of(network, teacher.schedule, config), folder


@pytest.mark.parametrize("call", [{"sigmas": [1.0]}, {"num_inference_steps": 4}])
def test_stock_diffusers_draws_what_the_roll_out_draws(
    published: tuple[Student, Path],
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    call: dict[str, Any],
) -> None:
    """For the same x_T and fresh noise; told the README's sigmas, or four steps alone."""
    student, folder = published
    steps = call.get("num_inference_steps", 1)
    assert "4: [1.0, 0.75, 0.5, 0.25]" in (folder / "README.md").read_text()
    pipe, x_T = stock_pipeline(folder), tiny.noise(2)
    drawn = [tiny.noise(2, key) for key in range(1, steps)]
    renoise = torch.stack(drawn) if drawn else x_T[None, :0]
    fresh = iter(drawn)  # and one in the last step, which has no share in its picture

    def stock_noise(shape: Any, **_: Any) -> torch.Tensor:
        noise = next(fresh, x_T)  # FLUX.2's scheduler steps tokens
        return noise if noise.shape == shape else noise.flatten(2).transpose(1, 2)

    monkeypatch.setattr(f"{EULER}.randn_tensor", stock_noise)
    expected = draw(pipe, x_T, "latent", guidance_scale=0, **call)
    with torch.no_grad():
        cond = student.network.teacher.encode(PROMPTS)  # type: ignore[attr-defined]
        x_0 = student.rollout(x_T, cond, steps, renoise)
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)


def test_the_pages_own_call_draws_what_the_roll_out_draws(
    published: tuple[Student, Path], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one step, for the pictures' size and the text's tokens that the student was trained on."""
    student, folder = published
    page, x_T = folder / "README.md", tiny.noise(1)
    assert "height=32, width=32, max_sequence_length=48, sigmas=sigmas[1]" in page.read_text()
    monkeypatch.chdir(folder)
    drawn, teacher = run_page(page, x_T), student.network.teacher  # type: ignore[attr-defined]
    with torch.no_grad():
        x_0 = student.rollout(x_T, teacher.encode([PROMPT]), 1, x_T[None, :0])
        torch.testing.assert_close(drawn, teacher.decode(x_0), rtol=0, atol=1e-5)


def test_the_student_has_left_the_teacher(published: tuple[Student, Path], folder: Path) -> None:
    """By the layers that have a LoRA; the stock pipeline adds no guidance to it."""
    own, theirs = load_file(published[1] / WEIGHTS), load_file(folder / WEIGHTS)
    assert own.keys() == theirs.keys()
    assert max(float((own[n] - theirs[n]).abs().max()) for n in own) > 1e-3
    index = (published[1] / "model_index.json").read_text()
    assert ('"is_distilled": true' in index) == ("Flux2KleinPipeline" in index)


def test_starts_with_published_weights_or_a_lora(
    kind: str, tiny: Tiny, teacher: Any, tmp_path: Path
) -> None:
    """2 A B on one layer, as a file of diffusers' names; and a whole transformer."""
    weights, name = teacher.pipe.transformer.state_dict(), LAYER[kind]
    lora, (rows, columns) = tmp_path / "lora.safetensors", weights[f"{name}.weight"].shape
    down, up = torch.ones(1, columns), torch.full((rows, 1), 2.0)
    keys = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_file(keys, lora)
    network: Any = tiny.student.model_validate({"start": str(lora)}).build(teacher)
    found = network.module.state_dict()
    torch.testing.assert_close(found[f"{name}.weight"], weights[f"{name}.weight"] + 2.0)
    same = [n for n in weights if torch.equal(found[n], weights[n])]
    assert len(same) == len(weights) - 1
    file = tmp_path / "turbo.safetensors"
    save_file({n: w + 1 for n, w in weights.items()}, file)
    fields = {"start": str(file), "train": "lora", "rank": 2}
    network = tiny.student.model_validate(fields).build(teacher)
    torch.testing.assert_close(network.transformer(torch.float32).state_dict(), load_file(file))


def test_a_teacher_with_a_lora_is_the_stock_pipelines(
    kind: str, tiny: Tiny, folder: Path, teacher_config: Any, tmp_path: Path
) -> None:
    """Fused at half its strength."""
    name = LAYER[kind]
    weight = load_file(folder / WEIGHTS)[f"{name}.weight"]
    generator = torch.Generator().manual_seed(0)
    down, up = (torch.randn(2, side, generator=generator) for side in reversed(weight.shape))
    keys = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up.T}
    save_file({n: w.contiguous() for n, w in keys.items()}, tmp_path / "lora.safetensors")
    update = {"lora": str(tmp_path / "lora.safetensors"), "lora_strength": 0.5}
    ours = teacher_config.model_copy(update=update).build()
    found = ours.pipe.transformer.state_dict()[f"{name}.weight"]
    torch.testing.assert_close(found, weight + 0.5 * up.T @ down)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"transformer.blocks.9.lora_A.weight": torch.ones(1, 2)}, "is not a LoRA for this model"),
        ({"decoder.conv.weight": torch.ones(1)}, "it is a VAE, and "),
    ],
)
def test_files_of_other_models_are_refused(
    tiny: Tiny, teacher: Any, tmp_path: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    file = tmp_path / "file.safetensors"
    save_file(tensors, file)
    with pytest.raises(UserError, match=f"^student.start: {file} .*{sentence}"):
        tiny.student.model_validate({"start": str(file)}).build(teacher)


def test_exports_load_into_stock_diffusers(
    published: tuple[Student, Path], folder: Path, tmp_path: Path
) -> None:
    """A LoRA of the student's rank gives its weights; a folder in 16 bits has them rounded."""
    student, own = published[0], load_file(published[1] / WEIGHTS)
    file = tmp_path / "lora.safetensors"
    LoRAExporter("fp32", 2, None).export(student.network, 1000, file)
    pipe = stock_pipeline(folder)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(pipe.transformer.state_dict(), own, rtol=1e-4, atol=1e-5)
    FolderExporter("fp16").export(student.network, 1000, tmp_path / "half")
    half = load_file(tmp_path / "half" / WEIGHTS)
    assert all(torch.equal(w, own[n].half()) for n, w in half.items())


def test_a_single_file_has_the_authors_names(
    kind: str, published: tuple[Student, Path], folder: Path, tmp_path: Path
) -> None:
    """Stock diffusers, and a teacher of the family, read the student's own tensors from it."""
    student, own = published[0], load_file(published[1] / WEIGHTS)
    file = tmp_path / "transformer.safetensors"
    TransformerExporter("fp32").export(student.network, 1000, file)
    assert {"z-image": "layers.0.attention.qkv.weight", "flux2": "img_in.weight"}[
        kind
    ] in load_file(file)
    network = type(student.network.transformer(torch.float32))
    read = network.from_single_file(file, config=str(folder), subfolder="transformer")
    assert read.state_dict().keys() == own.keys()
    assert all(torch.equal(w, own[name]) for name, w in read.state_dict().items())
    assert f'{network.__name__}.from_single_file(\n    "{file.name}"' in (
        file.with_suffix(".md").read_text()
    )


def merged(network: Any) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = network.transformer(torch.float32).state_dict()
    return weights


@pytest.mark.parametrize("train", ["full", "lora"])
def test_starts_with_the_difference_of_two_models(
    kind: str, tiny: Tiny, teacher: Any, tmp_path: Path, train: str
) -> None:
    """A turbo is its base and a change of rank one in a layer and a bias: a LoRA gets the former,
    to the teacher's own weights, which both it and the teacher keep."""
    weights, name = teacher.pipe.transformer.state_dict(), f"{LAYER[kind]}.weight"
    rows, columns = weights[name].shape
    change = torch.randn(rows, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(
        1, columns
    )
    other = next(n for n, w in weights.items() if w.ndim == 1)
    base = {n: w + 1 for n, w in weights.items()}
    turbo = {**base, name: base[name] + change, other: base[other] + 1}
    for file, tensors in (("base", base), ("turbo", turbo)):
        save_file(tensors, tmp_path / f"{file}.safetensors")
    start = f"{tmp_path / 'turbo.safetensors'} - {tmp_path / 'base.safetensors'}"
    config = tiny.student.model_validate({"start": start, "train": train, "rank": 2})
    found = merged(config.build(teacher))
    torch.testing.assert_close(found[name], weights[name] + change, rtol=1e-4, atol=1e-4)
    if train == "full":
        torch.testing.assert_close(found[other], weights[other] + 1)
    moved = [n for n in weights if float((found[n] - weights[n]).abs().max()) > 1e-4]
    assert sorted(moved) == sorted([name, other] if train == "full" else [name])
    assert [*config.derived_from()] == start.split(" - ")


def test_starts_with_a_published_folder(
    kind: str, tiny: Tiny, teacher: Any, published: tuple[Student, Path]
) -> None:
    """A transformer's, that is; another network's is refused."""
    network = tiny.student.model_validate({"start": str(published[1])}).build(teacher)
    torch.testing.assert_close(merged(network), load_file(published[1] / WEIGHTS))
    other = published[1] / "vae"
    with pytest.raises(UserError, match=f"^student.start: {other} is AutoencoderKL.*, and a "):
        tiny.student.model_validate({"start": str(other)}).build(teacher)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_files_names_are_the_original_ones(
    kind: str, tiny: Tiny, teacher: Any, tmp_path: Path, prefix: str
) -> None:
    """Z-Image's: q, k and v are one matrix; another network of the checkpoint is left out."""
    if kind != "z-image":
        pytest.skip("the conversion is the library's; one family shows that it is used")
    weights, original = teacher.pipe.transformer.state_dict(), {}
    for name, w in weights.items():
        if ".to_k." in name or ".to_v." in name:
            continue
        if ".to_q." in name:
            w = torch.cat([weights[name.replace("to_q", f"to_{x}")] for x in "qkv"])
        for ours, theirs in (
            ("all_final_layer.2-1.", "final_layer."),
            ("all_x_embedder.2-1.", "x_embedder."),
            (".to_out.0.", ".out."),
            (".norm_k.", ".k_norm."),
            (".norm_q.", ".q_norm."),
            (".to_q.", ".qkv."),
        ):
            name = name.replace(ours, theirs)
        original[f"{prefix}{name}"] = w + 1
    original["vae.decoder.conv_in.weight"] = torch.ones(1)
    save_file(original, tmp_path / "single.safetensors")
    start = str(tmp_path / "single.safetensors")
    network = tiny.student.model_validate({"start": start}).build(teacher)
    torch.testing.assert_close(merged(network), {n: w + 1 for n, w in weights.items()})
