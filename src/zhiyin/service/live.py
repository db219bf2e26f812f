"""The one mutable cell of the online path: which release is live."""

import logging
import threading
from types import TracebackType
from typing import Self

from zhiyin.errors import ReleaseError, ZhiyinError
from zhiyin.release import Release, Releases

logger = logging.getLogger("zhiyin")


class Live:
    """Holds the live release, and follows when another becomes it.

    A request takes one reference, so it never pairs one release's tower with another's index. A new release that
    cannot be opened leaves the old one live; `trouble` says why.
    """

    def __init__(self, releases: Releases, *, interval: float = 0.5) -> None:
        """Opens the live release, where there is one. `interval`: seconds between two looks at which it is."""
        self._releases, self._interval = releases, interval
        self._release: Release | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble = ""
        self.look()

    @property
    def release(self) -> Release:
        """The live release. Raises `ReleaseError` while there is none."""
        if self._release is None:
            raise ReleaseError(
                f"no release is live ({self.trouble})" if self.trouble else "no release is live",
                where=str(self._releases.root),
                remedy="Run `zhiyin publish recipe.toml`; the service follows.",
            )
        return self._release

    def look(self) -> None:
        """Swap, when another release has become the live one."""
        try:
            wanted = self._releases.current()
            if self._release is None or wanted != self._release.id:
                self._release = self._releases.open(wanted)
                logger.info("release %s is live", wanted)
            self.trouble = ""
        except (ZhiyinError, OSError, ValueError) as error:
            if str(error) != self.trouble:
                logger.warning("%s", error)
            self.trouble = str(error)

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
