"""Ask the live release from Python, without HTTP and without torch: what a ranking service in Python may do.

python retrieve.py RECIPE USER
"""

import sys

from zhiyin import Recipe, Request, Retriever


def main(path: str, user: str) -> None:
    recipe = Recipe.read(path)
    store, release = recipe.store.open(), recipe.releases.open()
    requests = [Request(user=user, k=5), Request(user=user, k=5, exclude_seen=False), Request(k=5)]
    for request, found in zip(requests, Retriever(store).retrieve(release, requests), strict=True):
        who = request.user or "a stranger"
        print(f"{who}, seen items {'left out' if request.exclude_seen else 'kept'}: {found.channel} {found.items}")
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
