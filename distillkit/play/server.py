"""The page's server: three addresses, and sentences for what can't be drawn."""

from __future__ import annotations

import base64
import io
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from distillkit.errors import UserError
from distillkit.evaluation.grids import to_image
from distillkit.play.models import Asked, PlayModel, listed
from distillkit.training.models.student import MAX_STEPS

PAGE = Path(__file__).parent / "page.html"
LOOPBACK = ("127.0.0.1", "localhost")
"""Hosts that are this machine alone."""
LONGEST = 2000
"""Characters of a prompt at most."""
MOST_SEED = 2**63 - 1


def make_app(models: Sequence[PlayModel], host: str = "127.0.0.1") -> Starlette:
    """The application. Pictures are drawn in threads, so that a slow one delays no other address.

    Bound to this machine, it answers to this machine's names alone: a page of another site can't
    reach it under a name of its own.
    """

    def page(_: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    def about(_: Request) -> Response:
        finished = all(model.finished() for model in models)
        return JSONResponse({"rows": listed(models), "finished": finished, "steps": MAX_STEPS})

    def picture(request: Request) -> Response:
        try:
            model, asked = _asked(request.query_params, models)
            drawn = model.draw(asked)
        except UserError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except Exception as error:  # a page must say what happened, and go on
            print(f"distillkit play: {type(error).__name__}: {error}", file=sys.stderr)
            said = f"The picture could not be drawn: {type(error).__name__}: {error}"
            return JSONResponse({"error": said}, status_code=500)
        file = io.BytesIO()
        to_image(drawn.picture_3HW).save(file, format="PNG")
        return JSONResponse(
            {
                "picture": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
                "seconds": drawn.seconds,
                "command": drawn.command,
            }
        )

    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    routes = [Route("/", page), Route("/about", about), Route("/picture", picture)]
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]
    )


def _asked(query: Mapping[str, str], models: Sequence[PlayModel]) -> tuple[PlayModel, Asked]:
    """What the address asks for. Raises `UserError`."""
    prompt = query.get("prompt", "").strip()
    if not prompt:
        raise UserError("Write a prompt: what should be in the picture?")
    if len(prompt) > LONGEST:
        raise UserError(f"The prompt has {len(prompt)} characters; {LONGEST} is the most")
    model = _whole(query, "model", 0, len(models) - 1)
    steps = _whole(query, "steps", 1, MAX_STEPS)
    seed = _whole(query, "seed", 0, MOST_SEED)
    asked = Asked(query.get("row", "student"), prompt, seed, steps)
    if "snapshot" in query:
        asked = Asked(asked.row, prompt, seed, steps, query["snapshot"])
    return models[model], asked


def _whole(query: Mapping[str, str], name: str, low: int, high: int) -> int:
    """A whole number of the address, `low` where it has none. Raises `UserError`."""
    text = query.get(name, str(low)).strip()
    digits = text.isascii() and text.isdecimal() and len(text) < 20
    if not digits or not low <= int(text) <= high:
        raise UserError(f"{name} '{text[:40]}': a whole number, {low} to {high}")
    return int(text)


def bound(host: str, port: int) -> socket.socket:
    """A listening socket at the address: who comes before the server runs, waits. Port 0 takes a
    free one. Raises `UserError`."""
    try:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: {said}; name a free port, or 0 for any"
        ) from None
    return made


def serve(app: Any, at: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[at])
