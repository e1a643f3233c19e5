"""The `distillkit` command: one file a command."""


def main() -> None:
    """Entry point."""
