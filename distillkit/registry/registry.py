"""Which parts are installed: name -> config class, socket by socket."""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.configs import SOCKETS, ComponentConfig
from distillkit.errors import did_you_mean


@dataclass(frozen=True)
class Origin:
    """Who brought a part."""

    plugin: str
    distribution: str = "?"
    version: str = "?"

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

    def add(self, config: type[ComponentConfig], origin: Origin) -> None:
        """Register a part. A name that is taken raises `DuplicatePartError`; the first stays."""
        entry = Entry(config, origin)
        parts = self._entries[entry.socket]
        if entry.name in parts:
            raise DuplicatePartError(
                f"{entry.socket} '{entry.name}' is brought by {parts[entry.name].origin} and by "
                f"{origin}; the first keeps the name. Uninstall one of them, or leave one out "
                "with DISTILLKIT_DISABLED_PLUGINS"
            )
        parts[entry.name] = entry

    def get(self, socket: str, name: str) -> Entry:
        """The part of that name, or `UnknownPartError` with what is meant and what there is."""
        parts = self._entries[socket]
        if name not in parts:
            guess = did_you_mean(name, parts)
            raise UnknownPartError(f"no {socket} '{name}';{guess} {self.what_is_installed(socket)}")
        return parts[name]

    def entries(self) -> list[Entry]:
        """Every part, in the order of a recipe's sockets, then by name."""
        return [parts[name] for parts in self._entries.values() for name in sorted(parts)]

    def what_is_installed(self, socket: str) -> str:
        """`installed: NAME, NAME`."""
        return f"installed: {', '.join(sorted(self._entries[socket])) or 'none'}"
