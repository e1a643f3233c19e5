"""`distillkit play RUN|FOLDER ...`: a local page that draws."""

from __future__ import annotations

from typing import Annotated

import typer

from distillkit.errors import UserError


def play(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs, finished or not, or published folders.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8321,
) -> None:
    """Open a page with teacher, start and student side by side, on the same noise."""
    try:
        import starlette as _starlette  # noqa: F401
        import uvicorn as _uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"distillkit play needs {error.name}: pip install 'distillkit[ui]'"
        ) from None

    from distillkit.cli.terminal.console import console
    from distillkit.play import server
    from distillkit.play.models import PlayModel

    with server.bound(host, port) as at:
        models = [PlayModel.open(source) for source in sources]
        shown, port = console(), at.getsockname()[1]
        if host in server.LOOPBACK:
            shown.print(f"http://{host}:{port}  (this machine only; Ctrl-C ends it)")
        else:
            shown.print(f"http://{host}:{port}  (Ctrl-C ends it)")
            shown.print("Every machine that reaches this address can draw: there is no password.")
        server.serve(server.make_app(models, host), at)
