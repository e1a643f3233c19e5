"""What recipes set of a student that is a diffusers network. Importing this needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from distillkit.configs import StudentConfig
from distillkit.remarks import Remark, without_effect
from distillkit_diffusers.choices import DType
from distillkit_diffusers.common.low_rank import start_terms
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.model_configs import missing_files, missing_peft

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.common.low_rank import Change

NO_WARM_UP = (
    "the teacher's weights need many steps, and there is no warm-up to one step: without "
    "`warmup.student` and `warmup.losses` the critics win from the start"
)


class NetworkStudentConfig(StudentConfig):
    """The denoiser's network, trained whole or through a LoRA. A family says what `start` may be,
    which layers get a LoRA, and what is made of the module that trains."""

    start: str = "teacher"
    """`teacher`, or the weights to start from."""
    train: Literal["full", "lora"] = "full"
    """`full`: every weight, in float32. `lora`: low-rank matrices beside frozen weights, which are
    the teacher's own tensors where `start` is `teacher` or a difference, and else have its number
    format."""
    rank: int = Field(64, ge=1)
    """For `train: lora`: rank of its matrices."""
    targets: tuple[str, ...] = Field((), min_length=1)
    """For `train: lora`: ends of the names of the layers that get one."""
    gradient_checkpointing: bool = False
    """Less memory for activations, for about a third more compute."""
    publish_dtype: DType = "float32"
    """Number format of the network in the published folder."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}
    trains_less: ClassVar[dict[str, Any]] = {"train": "lora"}

    @property
    def can_shard(self) -> bool:
        return self.train == "full"

    def derived_from(self) -> Iterable[str]:
        return [asset.spec for asset in self.start_assets()]

    def start_assets(self) -> list[Asset]:
        """The models and files that `start` names."""
        return [Asset("student.start", term, "file") for term in start_terms(self.start)]

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from missing_peft("train") if self.train == "lora" else ()
        yield from missing_files(self.start_assets())
        if self.start == "teacher" and not recipe.warmup.student:
            yield Remark(NO_WARM_UP, "start", is_error=False)
        if self.train == "full":
            yield from without_effect(self, "with `train: full`", "rank", "targets")

    def build(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        terms = start_terms(self.start)
        if len(terms) == 2:
            return self._student(teacher, change=lambda: self.load_change(terms, teacher))
        return self._student(teacher, start=lambda: self.load_start(teacher))

    def outline(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        return self._student(teacher, start=lambda: copy.deepcopy(_whole(teacher)))

    def base_of(self, teacher: contracts.Teacher) -> Any:
        """The teacher's network. Raises `UserError` for a teacher of another family."""
        raise NotImplementedError

    def load_start(self, teacher: contracts.Teacher) -> Any:
        """A network in float32 with the weights of `start`, which is neither the teacher's nor a
        difference."""
        raise NotImplementedError

    def load_change(self, terms: Sequence[str], teacher: contracts.Teacher) -> Change:
        """The first model's weights minus the second's."""
        raise NotImplementedError

    def student_of(self, teacher: contracts.Teacher, module: Any) -> contracts.StudentNetwork:
        """The student whose module trains."""
        raise NotImplementedError

    def _student(
        self,
        teacher: contracts.Teacher,
        start: Callable[[], Any] | None = None,
        change: Callable[[], Change] | None = None,
    ) -> contracts.StudentNetwork:
        """`start`: makes the network of a `start` with weights of its own. `change`: of a start
        that is a difference."""
        from distillkit_diffusers.common.quantized import bits_of, quantize
        from distillkit_diffusers.common.trainable import make_trainable, start_at
        from distillkit_diffusers.io.weights import convert
        from distillkit_diffusers.lora_twin import LoRATwin

        base = self.base_of(teacher)
        own = start if len(start_terms(self.start)) == 1 else None
        whole = own or (lambda: _whole(teacher))
        if self.train == "lora":
            network, bits = base if own is None else convert(own(), base.dtype), bits_of(base)
            if bits is not None:
                quantize(network, bits)
            again = whole if bits is not None else None
            module = LoRATwin(network, self.rank, self.targets, self.gradient_checkpointing, again)
        else:
            network = whole()
            network = copy.deepcopy(network) if network is base else network
            module = make_trainable(network, self.gradient_checkpointing)
        if change is not None:
            start_at(module, change())
        return self.student_of(teacher, module)


def _whole(teacher: Any) -> Any:
    """The teacher's network with the weights that were loaded; `base_of` knows its family."""
    return teacher.full_precision()
