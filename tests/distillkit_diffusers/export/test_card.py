"""A card of an SDXL run: base model and licence, as the teacher's own card states them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from distillkit.runs.folder import RunFolder
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetStudentConfig
from distillkit_diffusers.sd3.configs import SD3StudentConfig, SD3TeacherConfig
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import RECIPE


def test_what_a_recipe_derives_from() -> None:
    """A preset's files are among it, and a start that is not the teacher."""
    teacher = SDXLTeacherConfig.model_validate({"preset": "dmd2-4step", "vae": "/a/vae"})
    base, unet, vae = teacher.derived_from()
    assert base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert unet.startswith("tianweiy/DMD2/")
    assert vae == "/a/vae"
    assert not list(UNetStudentConfig().derived_from())
    assert list(UNetStudentConfig(start="a/b/c").derived_from()) == ["a/b/c"]
    assert list(SD3TeacherConfig(lora="a/b/c").derived_from())[1:] == ["a/b/c"]
    assert list(SD3StudentConfig(start="a/b/c").derived_from()) == ["a/b/c"]


@pytest.mark.parametrize("same", [True, False])
def test_the_licence_is_that_of_all_it_derives_from(
    tmp_path: Path, same: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher's card names one, with its text; the start's the same, or another."""
    text = "---\nlicense: other\nlicense_name: mine-1\nlicense_link: LICENSE.md\n---\n# Base\n"
    for name, said in (("base", text), ("start", text if same else "---\nlicense: mit\n---\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(said)
        (tmp_path / name / "LICENSE.md").write_text("You may.")
    run = RunFolder(tmp_path / "run")
    recipe = RECIPE.format(model=tmp_path / "base")
    start = tmp_path / "start"
    run.create(recipe.replace("{type: unet,", f"{{type: unet, start: '{start}',"), {}, 1)
    run.student.mkdir()
    (run.student / "README.md").write_text("# A model\n\nDraw.\n")
    assert command("card", run.path, "--base-model", "me/base") == 0
    made = ModelCard.load(run.path / "card" / "README.md")
    data = made.data.to_dict()
    assert data["base_model"] == ["me/base"]
    assert "| `base` | mine-1 | base/README.md |" in made.text
    assert str(tmp_path) not in made.text + (run.path / "card" / "recipe.yaml").read_text()
    licence = run.path / "card" / "LICENSE"
    if same:
        assert (data["license"], data["license_name"]) == ("other", "mine-1")
        assert data["license_link"] == "LICENSE"
        assert licence.read_text() == "You may."
    else:
        assert "license" not in data
        assert "| `start` | mit | start/README.md |" in made.text
        assert "give one with --license" in capsys.readouterr().out
        assert not licence.exists()
