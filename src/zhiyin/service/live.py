"""The one mutable cell of the online path: which release is live."""

import logging
import threading
from types import TracebackType
from typing import Self

from zhiyin.errors import ReleaseError
from zhiyin.release import Release, Releases

logger = logging.getLogger("zhiyin")

LONGEST_WAIT = 64
"""Looks that a release which could not be opened is left alone at most: opening one reads every byte of it."""


class Live:
    """Holds the live release, and follows when another becomes it.

    A request takes one reference, so it never pairs one release's tower with another's index. A new release that
    cannot be opened leaves the old one live; `trouble` says why.
    """

    def __init__(self, releases: Releases, *, interval: float = 0.5) -> None:
        """Opens the live release, where there is one. `interval`: seconds between two looks at which it is."""
        self._releases, self._interval = releases, interval
        self._release: Release | None = None
        self._refused = ""
        self._wait = self._waited = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble = ""
        self.look()

    @property
    def held(self) -> Release | None:
        """The live release, where there is one."""
        return self._release

    @property
    def release(self) -> Release:
        """The live release. Raises `ReleaseError` while there is none."""
        release = self._release
        if release is None:
            raise ReleaseError(
                f"no release is live ({self.trouble})" if self.trouble else "no release is live",
                where=str(self._releases.root),
                remedy="Run `zhiyin publish recipe.toml`; the service follows.",
            )
        return release

    def look(self) -> None:
        """Swap, when another release has become the live one. One that cannot be opened is tried again after 1, 2, 4 …
        more looks."""
        wanted = ""
        try:
            wanted = self._releases.current()
            if self._release is not None and wanted == self._release.id:
                self._refused = self.trouble = ""
            elif not self._is_left_alone(wanted):
                self._release = self._releases.open(wanted)
                self._refused = self.trouble = ""
                logger.info("release %s is live", wanted)
        except Exception as error:  # whatever it is, the release that is live stays live, and is followed on
            said = str(error) or type(error).__name__
            if said != self.trouble:
                logger.warning("%s", said)
            self.trouble = said
            self._leave_alone(wanted)

    def _is_left_alone(self, id: str) -> bool:
        if id != self._refused:
            self._wait = 0
            return False
        self._waited += 1
        return self._waited <= self._wait

    def _leave_alone(self, id: str) -> None:
        self._wait = min(2 * self._wait or 1, LONGEST_WAIT) if id == self._refused else 1
        self._refused, self._waited = id, 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._follow, name="zhiyin-live", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(self._interval):
            self.look()
