"""Students whose UNet predicts something else than noise: exported files say so, and the page's own
code draws the run's picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors import safe_open

from distillkit.training.models.student import Student
from distillkit_diffusers.configs import UNetStudentConfig
from distillkit_diffusers.export.exporters import (
    LoRAExporter,
    SingleFileExporter,
    UNetExporter,
)
from distillkit_diffusers.export.pages import sdxl_page
from distillkit_diffusers.io.prediction import Prediction
from distillkit_diffusers.teacher import load_teacher
from distillkit_diffusers.teacher_options import TeacherOptions
from tests.distillkit_diffusers.tiny import PROMPTS, build_pipeline, noise, perturbed, save

SHIFT = 500
FORMS = {
    "checkpoint": SingleFileExporter("fp32"),
    "unet": UNetExporter("fp32"),
    "lora": LoRAExporter("fp32", 10_000, None),
}


@pytest.fixture(scope="module")
def v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline, whose scheduler says that it predicts v up to pure noise."""

    def build() -> Any:
        pipe = build_pipeline()
        said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, **said)
        return pipe

    return save(build, tmp_path_factory.mktemp("models") / "tiny-v")


def student_of(teacher: Any) -> Any:
    return perturbed(UNetStudentConfig().build(teacher), matrices_only=True)


def from_page(file: Path, base: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pipeline that the Python on the file's page makes, in 32 bits. `base`: the folder that
    the page names; `config`: what a single file's reader takes for SDXL base."""
    monkeypatch.chdir(file.parent)
    [code] = re.findall(r"```python\n(.*?)```", file.with_suffix(".md").read_text(), re.DOTALL)
    assert ("base = " in code) == (f'base = "{base.name}"' in code)
    code = code.replace(f'base = "{base.name}"', f"base = {str(base)!r}").replace("16)", "32)")
    local = f"config={str(config)!r}, local_files_only=True, dtype"
    code = re.sub(r"(from_single_file\(.*)dtype", lambda found: found[1] + local, code)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["pipe"]


@pytest.mark.parametrize("form", FORMS)
def test_the_page_of_a_v_student_draws_the_runs_picture(
    v_folder: Path, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    student, path = student_of(load_teacher(v_folder)), tmp_path / "student.safetensors"
    FORMS[form].export(student, SHIFT, path)  # type: ignore[attr-defined]
    teacher = student.teacher
    with torch.no_grad():
        run = Student(student, teacher.schedule, SHIFT)
        expected = run.rollout(noise(2), teacher.encode(PROMPTS), 1, torch.empty(0))
    pipe = from_page(path, v_folder, tiny_sdxl, monkeypatch)
    pipe.set_progress_bar_config(disable=True)
    call = {"timesteps": [499], "guidance_scale": 0, "output_type": "latent"}
    found = pipe(PROMPTS, latents=noise(2), **call).images
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_file_and_its_workflow_say_what_is_predicted(
    v_folder: Path, tmp_path: Path, form: str
) -> None:
    """ComfyUI and Forge know a checkpoint by two empty tensors; a UNet file has none, since
    `load_state_dict` takes no others than its own."""
    student, path = student_of(load_teacher(v_folder)), tmp_path / "student.safetensors"
    FORMS[form].export(student, SHIFT, path)  # type: ignore[attr-defined]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "timestep_shift": "500",
            "modelspec.prediction_type": "v",
            "ss_zero_terminal_snr": "True",
        }
        empty = {name for name in file.keys() if 0 in file.get_slice(name).get_shape()}  # noqa: SIM118
    assert empty == ({"v_pred", "ztsnr"} if form == "checkpoint" else set())
    graph = json.loads(path.with_suffix(".json").read_text())
    shift = graph[graph["7"]["inputs"]["model"][0]]
    sampling = graph[shift["inputs"]["model"][0]]
    assert sampling["class_type"] == "ModelSamplingDiscrete"
    assert sampling["inputs"].pop("model")[0] == ("1" if form == "checkpoint" else "2")
    assert sampling["inputs"] == {"sampling": "v_prediction", "zsnr": True}
    loaded = "student" if form == "checkpoint" else "tiny-v"
    assert graph["1"]["inputs"]["ckpt_name"] == f"{loaded}.safetensors"
    page = path.with_suffix(".md").read_text()
    assert "The UNet predicts `v_prediction`, on betas rescaled to zero terminal SNR" in page
    assert "ModelSamplingDiscrete with\nsampling v_prediction, zsnr true. The model goes" in page


def test_a_prediction_of_x_0_has_no_empty_tensor(tiny_sdxl: Path, tmp_path: Path) -> None:
    """As Lightning's one step has; the recipe says it."""
    student = student_of(load_teacher(tiny_sdxl, TeacherOptions(prediction="sample")))
    path = tmp_path / "student.safetensors"
    SingleFileExporter("fp32").export(student, 1000, path)
    with safe_open(path, "pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "sample"
        assert not {"v_pred", "ztsnr"} & set(file.keys())
    node = json.loads(path.with_suffix(".json").read_text())["10"]["inputs"]
    assert node == {"model": ["1", 0], "sampling": "x0", "zsnr": False}
    assert 'prediction_type="sample"' in path.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("base", "line", "reader"),
    [
        ("Owner/NoobV-1.0", 'base = "Owner/NoobV-1.0"  # or', "from_pretrained(base"),
        ("/here/v.safetensors", 'base = "v.safetensors"  # the file of', "from_single_file(base"),
        (
            "Owner/repo/v.safetensors",
            'base = "https://huggingface.co/Owner/repo/blob/main/v.safetensors"',
            "from_single_file(base",
        ),
    ],
)
def test_the_base_is_the_teachers_model(base: str, line: str, reader: str) -> None:
    page = sdxl_page("lora", "a.safetensors", "a.json", 500, Prediction("v_prediction"), base)
    assert line in page
    assert reader in page
