"""Verbs that go on until they are stopped: answering requests, taking events."""

import json
import logging
import signal
import threading
from dataclasses import asdict, replace
from typing import Annotated

import typer

from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.terminal import console
from zhiyin.screen import say


def serve(
    recipe: RecipePath,
    host: Annotated[str, typer.Option(help="Address to listen on; the recipe's when left out.")] = "",
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; the recipe's when left out, a free one when 0.", show_default=False),
    ] = None,
) -> None:
    """Serve the live release over HTTP, and follow when another one becomes live."""
    from zhiyin.pipeline import serving
    from zhiyin.service.app import serve as run
    from zhiyin.service.live import Live

    read = opened(recipe)
    settings = replace(read.service, host=host or read.service.host)
    if port is not None:
        settings = replace(settings, port=port)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("zhiyin").setLevel(logging.INFO)
    served = serving(read)
    try:
        live = Live(served.releases, served.store, interval=served.releases.interval)
        run(live, served.store, settings, lambda words: say(console, words), read.online)
    finally:
        served.store.close()


def consume(
    recipe: RecipePath,
    once: Annotated[bool, typer.Option("--once", help="End when no entry is left, instead of waiting.")] = False,
    as_json: Json = False,
) -> None:
    """Put the events that an application writes to a Redis stream into the store. Start as many as you need."""
    from zhiyin import pipeline

    read, stop = opened(recipe), threading.Event()
    logging.basicConfig(format="%(message)s")
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        counted = pipeline.consume(read, stop, once=once, say=lambda words: say(console, words))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if as_json:
        print(json.dumps(asdict(counted)))
    else:
        say(console, counted.words)
