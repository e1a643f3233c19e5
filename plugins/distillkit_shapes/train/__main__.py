"""Trains the embedded world's weights: python -m distillkit_shapes.train --stage all --out DIR

The stages in order: vae, text, features, unet, decoder, evaluate. DIR becomes the pipeline's
folder, features.safetensors is written beside it, caches and checkpoints go to --work. The defaults
take about 200 minutes on two free CPU cores; a budget is wall clock, so a busy machine trains less.

Stage one-step is apart: it distils the shipped teacher by the recipe shapes_one_step, three times
on end, and replaces the shipped one-step weights: those after the first time, and after the last.
Stage few-step goes on from there: it trains all four levels of a student's roll-out. Stage
few-step-32 does so again, on samples of the teacher in 32 steps in the place of 8.

The shipped weights were made on two CPU cores that other work shared (hence fewer samples than
the same minutes give on free ones), by these runs:

    --stage text --minutes 1
    --stage vae --minutes 7.5 (with LATENT_NOISE 0.25), then --start 1 --minutes 6 (batch 16),
        then --start 2 --minutes 5.5
    --stage features --minutes 6
    --stage unet --minutes 82 (the first 36 with a quarter of GRID and without MAX_SNR)
    --stage decoder --minutes 45, beside it
    --stage unet --resume --minutes 160 (MIX in the last 46; 518,000 samples in all)
    --stage one-step (the recipe shapes_one_step three times, 8,000 updates; a stop resumes)
    --stage few-step (1,800 updates more, 35 minutes of one core; a stop resumes)
    --stage few-step-32 (6,600 updates more, two hours of one core; a stop resumes)

Stage mmdit is apart: it trains a transformer of the Stable Diffusion 3 family on the shipped
teacher's latents and words, for --samples or --minutes (and --resume after a stop), and makes
--out that pipeline's folder. The shipped one, distillkit_shapes/teacher_dit, was made on an H100:

    --stage mmdit --device cuda --batch 128 --minutes 1.75 (6,700 steps, 858,000 samples)

and draws 94.2 % of 1,000 captions right in 16 steps, 92.0 % of 500 in 8 with guidance 2:

    --stage evaluate --out FOLDER --num-images 1000 --steps 16 --guidance 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from distillkit_shapes.teacher import TEACHER

STAGES = ("vae", "text", "features", "unet", "decoder", "evaluate")
"""What `all` runs."""
APART = ("one-step", "few-step", "few-step-32", "mmdit")
MINUTES = {"vae": 19.0, "text": 1.0, "features": 2.0, "unet": 160.0, "decoder": 15.0}
"""Budget of each stage that trains, on two CPU cores."""


def run(stage: str, given: argparse.Namespace) -> None:
    """Runs one stage."""
    minutes = given.minutes or MINUTES.get(stage, 0.0)
    if stage == "vae":
        from distillkit_shapes.train.vae import train_vae

        train_vae(given.out, minutes, given.start)
    elif stage == "text":
        from distillkit_shapes.train.text import train_text

        train_text(given.out, minutes)
    elif stage == "features":
        from distillkit_shapes.train.features import train_features

        train_features(given.out.parent / "features.safetensors", minutes)
    elif stage == "unet":
        from distillkit_shapes.train.unet import launch_unet

        launch_unet(given.out, given.work, minutes, given.resume, given.threads)
    elif stage == "decoder":
        from distillkit_shapes.train.vae import train_decoder

        train_decoder(given.out, minutes)
    elif stage == "mmdit":
        from distillkit_shapes.train.mmdit import Budget, train_mmdit

        budget = Budget(given.samples, given.minutes)
        train_mmdit(
            *(TEACHER, given.out, given.work, budget, given.batch, given.device, given.resume)
        )
    elif stage == "one-step":
        from distillkit_shapes.train.students.one_step import train_one_step

        train_one_step(given.work)
    elif stage in ("few-step", "few-step-32"):
        from distillkit_shapes.train.students import few_step

        torch.set_num_threads(1)  # so that the same machine makes the same weights again
        plan = few_step.FEW_STEP if stage == "few-step" else few_step.FEW_STEP_32
        few_step.train_few_step(given.work, plan)
    else:
        from distillkit_shapes.train.evaluate import evaluate

        first, *others = given.steps
        settings = [(first, g) for g in given.guidance] + [(n, given.guidance[0]) for n in others]
        evaluate(given.out, given.work, given.num_images, settings)


def main() -> None:
    """Runs the stages that the command line names."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--stage", choices=("all", *STAGES, *APART), default="all")
    options.add_argument("--out", type=Path, default=TEACHER, help="the teacher's folder")
    options.add_argument("--work", type=Path, default=Path("work"), help="caches and checkpoints")
    options.add_argument("--minutes", type=float, help="the stage's budget instead of its own")
    options.add_argument("--samples", type=int, default=600_000, help="mmdit: samples in all")
    options.add_argument("--batch", type=int, default=32, help="mmdit: samples a step")
    options.add_argument("--device", default="cpu", help="mmdit: cpu or cuda")
    options.add_argument(
        "--resume", action="store_true", help="unet, mmdit: resume from the checkpoint"
    )
    options.add_argument(
        "--start", type=int, default=0, help="vae: 0 at random, 1, 2, ... from out/vae"
    )
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--num-images", type=int, default=500, help="evaluate: pictures a row")
    options.add_argument(
        "--guidance", type=float, nargs="+", default=[1.0], help="evaluate: guidance scales"
    )
    options.add_argument(
        "--steps", type=int, nargs="+", default=[8, 4, 2], help="evaluate: rows of fewer steps too"
    )
    given = options.parse_args()
    if given.stage in ("all", "mmdit") and given.out == TEACHER:
        options.error(
            f"--stage {given.stage}: name another --out; the default is the shipped teacher"
        )
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    given.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if given.stage == "all" else (given.stage,):
        run(stage, given)


if __name__ == "__main__":
    main()
