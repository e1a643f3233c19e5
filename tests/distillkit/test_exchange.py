"""`package:NAME/inside/it` names a file of an installed package, in recipes as in messages."""

from __future__ import annotations

from pathlib import Path

import pytest

import distillkit
from distillkit.errors import UserError
from distillkit.exchange import packaged_path


def test_a_packages_file_and_a_plain_path() -> None:
    inside = packaged_path("package:distillkit/exchange.py", "student.start")
    assert inside == Path(distillkit.__file__).parent / "exchange.py"
    assert packaged_path("weights/unet", "student.start") == Path("weights/unet")
    assert packaged_path("~/unet", "student.start") == Path.home() / "unet"


@pytest.mark.parametrize("name", ["no_such_package", ""])
def test_a_package_that_is_not_there_is_named_with_its_field(name: str) -> None:
    with pytest.raises(UserError, match=f"student.start: there is no package '{name}'"):
        packaged_path(f"package:{name}/unet", "student.start")
