"""Every part keeps the contract that plugins are held to, and finds what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distillkit import testing
from distillkit.cli.results.eval import _configure
from distillkit.errors import UserError
from distillkit.evaluation.pictures import PictureFolder
from distillkit.registry.entry_points import Installed
from distillkit.registry.registry import Origin
from distillkit_eval.configs import (
    AppearanceConfig,
    ClipConfig,
    DinoConfig,
    DiversityConfig,
    EvalConfig,
    FidConfig,
)
from distillkit_eval.plugin import distillkit_register_metrics

PARTS = [config.name() for config in distillkit_register_metrics()]


@pytest.mark.parametrize("name", PARTS)
def test_contract(name: str, configs: dict[str, EvalConfig]) -> None:
    testing.check(configs[name])


def test_the_teachers_features_are_computed_once_and_pictures_may_lie_on_disk(
    configs: dict[str, Any], tmp_path: Path
) -> None:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    folder = PictureFolder(tmp_path / "own", range(8))
    teacher = PictureFolder(tmp_path / "teacher", range(8))
    for n, image in enumerate(images):
        folder.write(n, image)
        teacher.write(n, image.flip(0))
    real = tmp_path / "real"
    for n, side in enumerate((16, 20, 24, 16, 18, 30, 16, 16)):
        real.mkdir(exist_ok=True)
        Image.new("RGB", (side, 16), (30 * n, 9 * n, 5)).save(real / f"{n}.jpg")
    part = configs["fid"].model_copy(update={"reference": str(real)}).build()
    found = part.measure(folder, ["a"] * 8, teacher).values
    assert list(found) == [
        *("fid", "kid", "precision", "recall"),
        *("fid_teacher", "kid_teacher", "precision_teacher", "recall_teacher"),
    ]
    assert found.keys() == part.info.keys()
    assert not part.info["fid"].floor
    assert part.info["fid_teacher"].floor
    assert teacher in part.features.kept
    assert folder[0:8].shape == (8, 3, 16, 16)
    whole = part.compute(folder[0:8], ["a"] * 8, teacher[0:8])
    assert whole == pytest.approx(found)


def test_only_inceptions_distance_is_called_fid(configs: dict[str, EvalConfig]) -> None:
    for name, config in configs.items():
        for metric, info in config.build().info.items():
            called = "fid" in f"{metric} {info.title}".lower()
            assert called == (name in ("fid", "patch-fid") and "fid" in metric), metric


def test_each_picture_has_its_own_score(configs: dict[str, Any]) -> None:
    """The score of a picture does not depend on its neighbours in a batch."""
    images = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    prompts = ["a b", "c", "a much longer one than the model reads at all", "d", "e"]
    for name in ("clip", "pick", "hps", "aesthetic", "image-reward"):
        part = configs[name].build()
        [values] = part.measure(images, prompts, None).per_picture.values()
        [alone] = part.measure(images[1:2], prompts[1:2], None).per_picture.values()
        assert values[1] == pytest.approx(alone[0], abs=1e-5)
        assert len(set(values)) == 5, name


def test_appearance_by_hand() -> None:
    """Stripes of 0 and 1 change by 1 a pixel, those of 0 and 0.5 by half of it; their colours'
    channels are 0.4 and 0.1 apart."""
    stripes = (torch.arange(8) % 2).float().expand(1, 3, 8, 8)
    colour = torch.zeros(1, 3, 8, 8)
    colour[:, 0] = 0.4
    paler = colour / 4
    part = AppearanceConfig().build()
    found = part.compute(stripes / 2, ["a"], stripes)  # type: ignore[arg-type]
    assert found["detail_ratio"] == pytest.approx(0.5)
    both = torch.cat([stripes, paler]), torch.cat([stripes, colour])
    assert part.compute(both[0], ["a"] * 2, both[1])["saturation_ratio"] == pytest.approx(0.25)


def test_diversity_needs_several_pictures_of_a_prompt(configs: dict[str, Any]) -> None:
    part = configs["diversity"].build()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = part.measure(images[[0, 0, 1, 2]], ["a", "a", "b", "c"], None).values
    assert found["seed_distance"] == pytest.approx(0, abs=1e-6)
    assert found["vendi"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match=r"diversity: no prompt has several pictures; .*--per-prom"):
        part.measure(images, ["a", "b", "c"], None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ClipConfig(model="./gone"), "model: config.json is not on this machine; set `model` to"),
        (DiversityConfig(model="/gone/dino"), "model: config.json is not on this machine"),
        (FidConfig(weights="x.pth"), "weights: x.pth is not on this machine; set `weights` to its"),
        (DinoConfig(teacher=False), "reference: nothing to compare with: give real pictures (--re"),
        (FidConfig(reference="./gone"), "reference: there is no folder ./gone"),
    ],
)
def test_what_is_missing_is_known_before_anything_is_drawn(
    config: EvalConfig, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks = [f"{each.field}: {each.message}" for each in config.preflight(None)]
    assert any(said in remark for remark in remarks), remarks


def test_the_command_tells_each_part_what_it_knows(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number, seed, real pictures, and whether there is a teacher; `--set` has the last word."""
    found = Installed()
    for config in distillkit_register_metrics():
        found.registry.add(config, Origin("eval", "distillkit", "1"))
    monkeypatch.setattr("distillkit.registry.entry_points.installed", lambda: found)
    known = {"num_images": 9, "seed": 3, "teacher": False, "reference": str(models)}
    settings = [f"dino.model={models / 'dino'}", f"clip.model={models / 'clip'}", "dino.seed=4"]
    dino, clip = _configure("dino, clip", settings, known)
    assert isinstance(dino, DinoConfig)
    assert (dino.num_images, dino.seed, dino.reference) == (9, 4, str(models))
    assert not dino.needs_teacher
    assert clip.seed == 3
    with pytest.raises(UserError) as caught:
        _configure("pick,dino", ["pick.model=./no", "dino.model=./gone"], known)
    lines = str(caught.value).splitlines()
    assert [line.partition(" is not")[0] for line in lines] == [
        "--metrics pick: model: config.json",
        "--metrics dino: model: config.json",
    ]


def test_fid_without_its_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    images = torch.rand(8, 3, 8, 8)
    with pytest.raises(UserError, match=r"FID needs torch-fidelity, which can't be imported .*"):
        FidConfig().build().compute(images, ["a"] * 8, images)


def test_weights_of_something_else_are_refused(configs: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"layers.0.weight": torch.zeros(3, 8), "x": torch.zeros(1)}, tmp_path / "other.pt")
    images = torch.rand(2, 3, 16, 16)
    other = {"head": str(tmp_path / "other.pt")}
    with pytest.raises(UserError, match=r"other\.pt holds other weights than this metric's"):
        configs["aesthetic"].model_copy(update=other).build().measure(images, ["a", "b"], None)
    for name, said in (
        ("hps", "is no open-clip file: it has no visual.conv1.weight"),
        ("image-reward", "is no file of ImageReward"),
    ):
        changed = configs[name].model_copy(update={"model": str(tmp_path / "other.pt")})
        with pytest.raises(UserError, match=said):
            changed.build().measure(images, ["a", "b"], None)
    (tmp_path / "torn.pt").write_bytes(b"torn")
    torn = configs["hps"].model_copy(update={"model": str(tmp_path / "torn.pt")})
    with pytest.raises(UserError, match=r"torn\.pt can't be read as weights"):
        torn.build().measure(images, ["a", "b"], None)
