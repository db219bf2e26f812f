"""Dynamic routing (Sabour et al. 2017, "Dynamic Routing Between Capsules") as MIND and ComiRec use it: behaviours vote
for interests, and votes go where they agree."""

import torch
from torch import Tensor

from zhiyin.models.windows import compared, summed


def squash(vectors: Tensor) -> Tensor:
    """[…, d] ‖z‖²/(1 + ‖z‖²) · z/‖z‖: the same direction, a length below 1; zero stays zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    short: Tensor = vectors * (length / (1 + length.square()))
    return short


def route(votes: Tensor, weights: Tensor, logits: Tensor, alive: Tensor, rounds: int) -> Tensor:
    """[r, T, h, d] interests by B2I routing (Li et al. 2019, algorithm 1), where every interest hears the same votes.

    votes [r, P, d]: S e of each event of a run. weights [r, T, P]: what an event's vote counts for a request, 0 where
    the request does not see it. logits [r, T, h, P]: where routing starts. alive bool [r, T, h]: interests that
    take part. Each round: the softmax over interests, sums, squash, agreement added to the logits. Gradients come
    through the last round's sums alone.
    """
    fixed, counted = votes.detach(), weights.detach()[:, :, None]
    dead = ~alive[..., None]
    for _ in range(rounds - 1):
        couplings = logits.masked_fill(dead, -torch.inf).softmax(2)
        logits = logits + compared(squash(summed(couplings * counted, fixed)), fixed)
    couplings = logits.masked_fill(dead, -torch.inf).softmax(2)
    return squash(summed(couplings * weights[:, :, None], votes))


def interests_alive(counts: Tensor, most: int) -> Tensor:
    """bool [r, T, most]: the first K' = max(1, min(most, ⌊log2 counts⌋)) of them, for counts int64 [r, T] (Li et al.
    2019, section 4.2)."""
    least = torch.tensor([0, *(2 ** (j + 1) for j in range(1, most))], device=counts.device)
    return counts[..., None] >= least
