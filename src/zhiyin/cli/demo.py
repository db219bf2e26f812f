"""The verb that shows it all."""

from pathlib import Path
from typing import Annotated

import typer

from zhiyin.cli.terminal import console


def demo(
    home: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("movielens-100k"),
    data: Annotated[
        Path | None, typer.Option(help="Folder or archive with MovieLens-100K, instead of fetching it.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep serving at the end, and print a curl line to try.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 0,
) -> None:
    """See the whole path on MovieLens-100K: fetch, prepare, train, evaluate, publish, serve, ask. A few minutes."""
    from zhiyin.demo import run

    run(home, data=data, keep=keep, port=port, console=console)
