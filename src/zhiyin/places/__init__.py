"""Where releases are kept: a folder, or whatever fsspec has a URL for. Files, a pointer and locks; nothing here knows
what a release is."""
