"""Muon: momentum whose update of each matrix is made orthogonal, so that all its directions are learned at once.

After Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; updates are scaled to the size that Adam's have
(Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial that drives singular values towards 1
ADAM_RMS = 0.2


def orthogonal(matrices: Tensor) -> Tensor:
    """`[n, rows, columns]` with singular values of about 1, by Newton and Schulz's iteration."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only; matrices of one shape are updated together."""

    def __init__(self, matrices: list[Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        super().__init__([{"params": same} for same in shapes.values()], dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            matrices, momentum = group["params"], group["momentum"]
            gradients = torch.stack([m.grad for m in matrices])
            state = self.state[matrices[0]]
            average = state.setdefault("average", torch.zeros_like(gradients))
            average.lerp_(gradients, 1 - momentum)
            update = orthogonal(gradients.lerp(average, momentum)).float()
            scale = group["lr"] * ADAM_RMS * max(update.shape[-2:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(matrices, list(update.unbind()), alpha=-scale)
