"""The command line: parse, call, print."""

from zhiyin.cli.entry import app, main

__all__ = ["app", "main"]
