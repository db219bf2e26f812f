"""MurmurHash64A of many strings at once: no Python per string, and the same on every machine."""

import numpy as np
from numpy.typing import NDArray

_M = np.uint64(0xC6A4A7935BD1E995)
_R = np.uint64(47)
_CHUNK = 1 << 16
_TAILS = np.array([(1 << 8 * size) - 1 for size in range(8)], np.uint64)
"""What keeps the first `size` bytes of a little-endian word."""


def hashes(utf8: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    """[n] the hash of each string; string i is `utf8[offsets[i]:offsets[i + 1]]`.

    Austin Appleby's MurmurHash64A, of the MurmurHash2 family (public domain): eight bytes a round, read as
    little-endian. It spreads well and keeps no secrets: whoever chooses ids can make them collide.
    """
    count = len(offsets) - 1
    found = np.empty(count, np.uint64)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        part = offsets[start : stop + 1]
        found[start:stop] = _hashes(utf8[part[0] : part[-1]], part - part[0], np.uint64(seed))
    return found


def _hashes(utf8: NDArray[np.uint8], offsets: NDArray[np.int64], seed: np.uint64) -> NDArray[np.uint64]:
    padded = np.concatenate([utf8, np.zeros(8, np.uint8)])
    words = np.ndarray(len(utf8) + 1, "<u8", padded, strides=(1,))  # the eight bytes from every place on
    starts, sizes = offsets[:-1], np.diff(offsets)
    state = seed ^ (sizes.astype(np.uint64) * _M)
    going, at = np.flatnonzero(sizes >= 8), 8
    while len(going):
        state[going] = (state[going] ^ _mixed(words[starts[going] + at - 8])) * _M
        at += 8
        going = going[sizes[going] >= at]
    rest = sizes & 7
    tails = words[starts + sizes - rest] & _TAILS[rest]
    state = np.where(rest > 0, (state ^ tails) * _M, state)
    state = (state ^ (state >> _R)) * _M
    return np.asarray(state ^ (state >> _R))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words * _M
    return np.asarray((words ^ (words >> _R)) * _M)
