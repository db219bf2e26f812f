"""Where a person reads: progress, tables and errors go to stderr; what a program may read goes to stdout."""

from zhiyin.screen import screen

console = screen()
