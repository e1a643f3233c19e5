"""Which parts are installed: name -> config class, socket by socket."""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.configs import SOCKETS, ComponentConfig
from distillkit.errors import did_you_mean

BUILT_IN = "distillkit"
"""The distribution whose plugins' names nobody else can take."""


@dataclass(frozen=True)
class Origin:
    """Who brought a part."""

    plugin: str
    distribution: str = "?"
    version: str = "?"

    @property
    def is_built_in(self) -> bool:
        """Whether it comes with distillkit itself."""
        return self.distribution == BUILT_IN

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Entry:
    """An installed part."""

    config: type[ComponentConfig]
    origin: Origin

    @property
    def socket(self) -> str:
        return self.config.socket

    @property
    def name(self) -> str:
        return self.config.name()

    @property
    def summary(self) -> str:
        """First line of the config's docstring."""
        return (self.config.__doc__ or "").strip().partition("\n")[0]


class DuplicatePartError(ValueError):
    """Two plugins brought parts of the same name for one socket."""


class UnknownPartError(LookupError):
    """Nothing of that name is installed."""


class Registry:
    """The installed parts of every socket."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {base.socket: {} for base in SOCKETS}
        self._ambiguous: dict[tuple[str, str], str] = {}
        """Names that two plugins bring, with the sentence about them; no recipe can use them."""

    def add(self, config: type[ComponentConfig], origin: Origin) -> None:
        """Register a part. A name that is taken raises `DuplicatePartError`.

        A built-in part keeps its name: those are registered first. Between two others nobody has
        it: a recipe that names it is refused.
        """
        entry = Entry(config, origin)
        first = self._entries[entry.socket].setdefault(entry.name, entry)
        if first is entry:
            return
        sentence = f"{entry.socket} '{entry.name}' is brought by {first.origin} and by {origin}"
        if first.origin.is_built_in:
            raise DuplicatePartError(
                f"{sentence}; a built-in name can't be replaced: choose another name for yours"
            )
        sentence += ". Uninstall one of them, or leave one out with DISTILLKIT_DISABLED_PLUGINS"
        self._ambiguous[entry.socket, entry.name] = sentence
        raise DuplicatePartError(sentence)

    def get(self, socket: str, name: str) -> Entry:
        """The part of that name, or `UnknownPartError` with what is meant and what there is."""
        parts = self._entries[socket]
        if (socket, name) in self._ambiguous:
            raise UnknownPartError(self._ambiguous[socket, name])
        if name not in parts:
            guess = did_you_mean(name, parts)
            raise UnknownPartError(f"no {socket} '{name}';{guess} {self.what_is_installed(socket)}")
        return parts[name]

    def origin(self, config: type[ComponentConfig]) -> Origin | None:
        """Who brought the part; None where nobody registered it."""
        return next((e.origin for e in self.entries() if e.config is config), None)

    def entries(self) -> list[Entry]:
        """Every part, in the order of a recipe's sockets, then by name."""
        return [parts[name] for parts in self._entries.values() for name in sorted(parts)]

    def what_is_installed(self, socket: str) -> str:
        """`installed: NAME, NAME`."""
        return f"installed: {', '.join(sorted(self._entries[socket])) or 'none'}"
