"""PLACEHOLDER so that the package imports while users/ is being written; its owner overwrites it."""

import copy

import torch

from orchestra_strategy.algorithms.objective import as_loss_parts


class UserMultiStep:
    def __init__(
        self, model, loss, dataloader, setup, idx, cfg_user, *, optimizer_fn=None, batches=None
    ):
        self.model, self.loss, self.batches = copy.deepcopy(model), loss, batches
        self.optimizer = optimizer_fn(self.model.parameters())

    def set_optimizer_options(self, **options):
        for group in self.optimizer.param_groups:
            group.update(options)

    def compute_local_updates(self, payload):
        with torch.no_grad():
            for p, v in zip(self.model.parameters(), payload["parameters"]):
                p.copy_(v)
        self.model.train()
        logs = []
        for batch in self.batches():
            self.optimizer.zero_grad()
            parts = as_loss_parts(self.loss(self.model, batch))
            parts.total.backward()
            self.optimizer.step()
            logs.append(
                {"total": parts.total.item(), **{k: v.item() for k, v in parts.parts.items()}}
            )
        self.loss_means = {k: sum(l[k] for l in logs) / len(logs) for k in logs[0]} if logs else {}
        grads = [p.detach() - v for p, v in zip(self.model.parameters(), payload["parameters"])]
        return {"gradients": grads, "buffers": [b.clone() for b in self.model.buffers()]}, {}
