"""The verbs together, and how a command ends. Errors a person can mend exit with 2, failures with 1."""

import os
import sys
import tempfile
import traceback

import typer
from rich.markup import escape

from zhiyin.cli.asking import ask
from zhiyin.cli.demo import demo
from zhiyin.cli.log import data, init, prepare
from zhiyin.cli.measuring import compare, evaluate
from zhiyin.cli.publishing import load, publish
from zhiyin.cli.releases import releases, rollback
from zhiyin.cli.serving import consume, serve
from zhiyin.cli.terminal import console
from zhiyin.cli.training import fit, sweep
from zhiyin.cli.tuning import tune
from zhiyin.errors import UserError, ZhiyinError

VERBS = (
    (demo, "zhiyin demo --keep"),
    (init, "zhiyin init events.csv --items items.csv --users users.csv"),
    (data, "zhiyin data movielens-100k"),
    (prepare, "zhiyin prepare recipe.toml"),
    (fit, "zhiyin fit recipe.toml"),
    (sweep, "zhiyin sweep recipe.toml --trials 30"),
    (evaluate, "zhiyin evaluate recipe.toml --report"),
    (compare, "zhiyin compare recipe.toml faster.toml"),
    (tune, "zhiyin tune recipe.toml --overlap 0.99 -k 500"),
    (publish, "zhiyin publish recipe.toml"),
    (load, "zhiyin load recipe.toml"),
    (releases, "zhiyin releases recipe.toml --prune 3"),
    (rollback, "zhiyin rollback recipe.toml"),
    (serve, "zhiyin serve recipe.toml --port 8000"),
    (consume, "zhiyin consume recipe.toml"),
    (ask, "zhiyin ask 42 -k 10"),
)
"""Each verb, in the order of the help, with an example of it."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="**zhiyin** – deep retrieval: an interaction log goes in, a live endpoint for candidate items comes out.\n\n"
    "Start with `zhiyin demo`. With your own files: `zhiyin init EVENTS`, then `zhiyin fit`, `evaluate`, `publish`, "
    "`serve`, each with the recipe that init wrote.",
)

for verb, example in VERBS:
    app.command(epilog=f"Example: `{example}`")(verb)


def main() -> None:
    """The entry point: runs the command and turns what can go wrong into a sentence and an exit code."""
    # Before torch. Threads that spin cost 20× on a busy machine, threads that sleep at once 1.7× on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        app()
    except ZhiyinError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, UserError) else 1)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(1)
    except Exception as error:
        _say(f"a bug: {type(error).__name__}: {error}. Please report it with what is in {_kept_traceback()}")
        sys.exit(1)


def _say(sentence: str) -> None:
    console.print(f"[bold red]zhiyin:[/] {escape(sentence)}", soft_wrap=True)


def _kept_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="zhiyin-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    return file.name
