"""AdamW for embeddings and norms, orthogonalised momentum (Muon) for the matrices in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(update: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by a quintic Newton-Schulz iteration.

    Follows the Muon optimizer of K. Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    is_tall = update.shape[0] > update.shape[1]
    x: Tensor = update.T if is_tall else update
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; for two-dimensional parameters only."""

    def __init__(
        self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                self._step_param(param, group)

    def _step_param(self, param: nn.Parameter, group: dict[str, Any]) -> None:
        state, grad = self.state[param], param.grad
        assert grad is not None, "every matrix takes part in every step"
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(param)
        velocity = state["momentum"].lerp_(grad, 1 - group["momentum"])
        update = orthogonalised(grad.lerp(velocity, group["momentum"]))
        scale = max(1.0, param.shape[0] / param.shape[1]) ** 0.5
        param.mul_(1 - group["lr"] * group["weight_decay"])
        param.add_(update, alpha=-group["lr"] * scale)


def optimizers_for(model: nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """One optimizer for the matrices inside the layers, one for everything else."""
    named = list(model.named_parameters())
    matrices = [param for name, param in named if param.ndim == 2 and "embed" not in name and "lm_head" not in name]
    taken = {id(param) for param in matrices}
    others = [param for _, param in named if id(param) not in taken]
    return [
        Muon(matrices, lr=matrix_lr, weight_decay=0.01),
        torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
