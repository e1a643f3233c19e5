"""A model card of a run's student: README.md with front matter, for readers and for the hub.

OUT/README.md      the card
OUT/grid.png       teacher, start and student side by side
OUT/metrics.json   of the run's own evaluation
OUT/recipe.yaml    with the paths of this machine cut to their last names
OUT/LICENSE        where the weights that it derives from bring one
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distillkit.atomic import appearing, write_text
from distillkit.report.licence import CARD, Licence, common, repository
from distillkit.report.measured import Measured, meanings, measured
from distillkit.report.report import duration, render
from distillkit.runs.folder import RunFolder, read_log

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

SECTIONS = ("teacher", "student", "losses", "refinement")
"""Of the recipe, in the card itself."""
TAGS = ("distillkit", "distillation", "few-step")
TASK = "text-to-image"
GRID = "grid.png"


@dataclass(frozen=True)
class Source:
    """Weights that the student derives from."""

    name: str
    """As the recipe names them."""
    licence: Licence | None
    """As their owner states it; None where nothing states one."""

    @property
    def title(self) -> str:
        """Without a path of this machine."""
        return f"`{without_folders(self.name)}`"


@dataclass(frozen=True)
class Card:
    """What a card is made of."""

    run: RunFolder
    title: str
    page: str
    """What the family's exporter wrote about its files: front matter, and how to sample."""
    sources: Sequence[Source]
    """The first is the model that was distilled."""
    licence: str | None = None
    """The identifier that the user gave; it overrides what the sources state."""
    base_models: Sequence[str] = ()
    """Hub names that the user gave, beside those among the sources."""
    snapshot: str | None = None
    """The student of an earlier moment; None is the newest."""
    about: Sequence[str] = ()
    """What the exporter said of the files, in lines."""

    def chosen_licence(self) -> Licence | None:
        """The user's, or the one that all sources share; None where there is neither."""
        if self.licence is not None:
            return Licence(self.licence)
        return common([source.licence for source in self.sources])

    def write(self, out: Path) -> list[str]:
        """Write the card and its files into the folder; returns what the user should know."""
        found = measured(self.run, self.snapshot)
        grid, licence = self.run.grids / "compare.png", self.chosen_licence()
        files = {GRID: grid, "metrics.json": self.run.metrics}
        files |= {"LICENSE": licence.text} if licence is not None and licence.text else {}
        for name, file in files.items():
            (out / name).unlink(missing_ok=True)
            if file.is_file():
                with appearing(out / name) as temporary:
                    shutil.copyfile(file, temporary)
        recipe = without_folders(yaml.safe_load(self.run.recipe.read_text(encoding="utf-8")))
        head = "# Paths of the machine that made it are cut to their last names.\n"
        write_text(out / "recipe.yaml", head + _yaml(recipe))
        write_text(out / CARD, self._text(recipe, found, grid.is_file()))
        return list(self._notes(found, grid.is_file()))

    def _text(self, recipe: Mapping[str, Any], found: Sequence[Measured], grid: bool) -> str:
        from huggingface_hub import ModelCard

        # Its own first lines may be no front matter, of which the library would warn.
        has_data = self.page.startswith("---\n")
        page = ModelCard(self.page if has_data else f"---\n{{}}\n---\n{self.page}")
        log = read_log(self.run.log) if self.run.log.is_file() else []
        versions = self.run.about().get("versions", {})
        body = render(
            "card.md.j2",
            {
                "title": self.title,
                "sources": self.sources,
                "version": versions.get("distillkit", ""),
                "grid": GRID if grid else "",
                "unseen": self.run.metrics.is_file(),
                "usage": _without_title(page.text),
                "about": self.about,
                "licence": self._licence_sentence(),
                "measured": [(each, shlex.join(without_folders(each.command))) for each in found],
                "meanings": meanings(found),
                "iterations": len(log),
                "duration": duration(sum(row["seconds"] for row in log)),
                "recipe": _yaml({key: recipe[key] for key in SECTIONS if key in recipe}),
                "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
            },
        )
        front = "---\n{{ card_data }}\n---\n\n{{ body }}"
        data = self._data(page.data.to_dict(), found)
        return str(ModelCard.from_template(data, template_str=front, body=body)) + "\n"

    def _data(self, page: Mapping[str, Any], found: Sequence[Measured]) -> ModelCardData:
        """The page's own front matter, and what the run and its sources add."""
        from huggingface_hub import ModelCardData

        licence = self.chosen_licence()
        named = [name for name in map(repository, (s.name for s in self.sources)) if name]
        fields: dict[str, Any] = {"pipeline_tag": TASK} | dict(page)
        fields["base_model"] = list(dict.fromkeys([*self.base_models, *named])) or None
        fields["tags"] = list(dict.fromkeys([*TAGS, *page.get("tags", [])]))
        if licence is not None:
            fields |= {"license": licence.id, "license_name": licence.name}
            fields["license_link"] = "LICENSE" if licence.text else licence.link
        task = fields["pipeline_tag"]
        results = [result for each in found for result in each.results(task)]
        if results:
            fields |= {"model_name": self.title, "eval_results": results}
        return ModelCardData(**fields)

    def _licence_sentence(self) -> str:
        chosen = self.chosen_licence()
        if self.licence is not None:
            return f"Licence of this student, as named by whoever shares it: {self.licence}."
        if chosen is not None:
            return f"This student has the licence of what it derives from: {chosen.title}."
        return (
            "What this student derives from states no licence that all of it shares, so none is "
            "named for it here."
        )

    def _judged_others(self, found: Sequence[Measured]) -> bool:
        judged = (self.run.path / "eval" / "metrics.json").is_file()
        return judged and not any(each.by == "eval" for each in found)

    def _notes(self, found: Sequence[Measured], grid: bool) -> Iterator[str]:
        if not self.sources:
            yield "The teacher's part does not tell which weights it has: no base model is named"
        for source in self.sources:
            if source.licence is None:
                yield f"No licence of {source.name} could be read here"
            else:
                yield f"{source.name}: {source.licence.title}, stated by {source.licence.where}"
        if (chosen := self.chosen_licence()) is None:
            yield "The card names no licence: give one with --license"
        else:
            yield f"The card's licence: {chosen.title}"
        if not found:
            yield "There are no metrics of these weights: `distillkit eval` makes some"
        if self._judged_others(found):
            yield "The run's eval/ is of other weights and left out: `distillkit eval` judges again"
        if not grid:
            yield "There is no grid of pictures: `distillkit run` makes it at its end"


def without_folders(value: Any) -> Any:
    """The same, with the absolute paths in it cut to their last names: also in the difference of
    two models (`A - B`), and behind the = of an option. Mappings and lists are gone through."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return " - ".join(map(_cut, value.split(" - "))) if isinstance(value, str) else value


def _cut(text: str) -> str:
    head, equals, path = text.rpartition("=")
    return head + equals + Path(path).name if path.startswith(("/", "~")) else text


def _yaml(value: Any) -> str:
    # Lists and mappings of plain values in one line, as recipes are written.
    text = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, width=96, default_flow_style=None
    )
    return str(text)


def _without_title(text: str) -> str:
    """A page's text below its first heading."""
    head, _, rest = text.strip().partition("\n")
    return (rest if head.startswith("# ") else text).strip()
