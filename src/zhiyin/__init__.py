"""zhiyin (知音): deep retrieval. An interaction log goes in; a live endpoint for candidate items comes out.

The stages are functions in `zhiyin.pipeline`. Each name here is imported when it is first asked for, so that
`import zhiyin` costs nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zhiyin.data.events import EventLog
    from zhiyin.data.prepared import Prepared
    from zhiyin.data.vocabulary import Vocabulary
    from zhiyin.errors import ZhiyinError
    from zhiyin.recipe import Recipe
    from zhiyin.release import Release
    from zhiyin.releases import Releases
    from zhiyin.retriever import Candidates, Request, Retriever

_HOMES = {
    "Candidates": "retriever",
    "EventLog": "data.events",
    "Prepared": "data.prepared",
    "Recipe": "recipe",
    "Release": "release",
    "Releases": "releases",
    "Request": "retriever",
    "Retriever": "retriever",
    "Vocabulary": "data.vocabulary",
    "ZhiyinError": "errors",
}

__all__ = [
    "Candidates",
    "EventLog",
    "Prepared",
    "Recipe",
    "Release",
    "Releases",
    "Request",
    "Retriever",
    "Vocabulary",
    "ZhiyinError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zhiyin' has no attribute {name!r}")
    return getattr(import_module(f"zhiyin.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
