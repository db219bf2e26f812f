"""Made `everything/` beside it, once: the golden release of format 2 with all that such a release may have besides –
towers whose weights lie in files of their own, tables of channels, a signature – and the key that made it true. Never
run it again: what was written then must be read for ever."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from make_release import HERE, make

from zhiyin.releases import Releases


def main() -> None:
    there = HERE / "everything"
    there.mkdir()
    setattr(sys.modules["zhiyin.publish"], "INSIDE", 100)  # noqa: B010 – of a module that a function hides
    tables = {
        folder.name: {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
        for folder in sorted((HERE / "channels").iterdir())
        if folder.is_dir()
    }
    with tempfile.TemporaryDirectory() as name:
        key = Path(name) / "release.key"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
        public = ["openssl", "pkey", "-in", str(key), "-pubout", "-out", str(there / "release.pub")]
        subprocess.run(public, check=True)
        make(Releases(there, sign=key, trust=(there / "release.pub",)), tables)


if __name__ == "__main__":
    main()
