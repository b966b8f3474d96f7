"""Slow, obvious versions of what the users do, written as plain loops over plain tensors.

``loss(model, x, y)`` is any function that returns a scalar; models are changed in place, so give
copies.
"""

import copy
import math

import torch


def gradient(loss, model, x, y):
    """What loss.backward() leaves, zeros where it leaves nothing."""
    model.zero_grad(set_to_none=True)
    loss(model, x, y).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def norm(tensors):
    """L2 norm over all tensors together, number by number in float64."""
    return math.sqrt(sum(float(v) ** 2 for t in tensors for v in t.double().flatten()))


def clipped_gradient(loss, model, x, y, clip_norm):
    """Mean over the examples of g_i * min(1, C / |g_i|)."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        one = gradient(loss, model, x[i : i + 1], None if y is None else y[i : i + 1])
        size = math.sqrt(sum(g.double().square().sum().item() for g in one))
        factor = 1.0 if size <= clip_norm else clip_norm / size
        for t, g in zip(total, one):
            t += factor * g
    return [t / len(x) for t in total]


def load(model, parameters, buffers=None):
    """The server's state; eval mode if it sends buffers."""
    with torch.no_grad():
        for own, sent in zip(model.parameters(), parameters):
            own.copy_(sent)
        for own, sent in zip(model.buffers(), buffers or ()):
            own.copy_(sent)
    model.train(buffers is None)


def local_sgd(loss, model, x, y, *, steps, size, lr, clip_norm=None):
    """Plain SGD on slices that go round; returns local minus server and the mean loss."""
    start = [p.detach().clone() for p in model.parameters()]
    position, losses = 0, []
    for _ in range(steps):
        rows = slice(position, position + size)
        position = (position + size) % len(x)
        bx, by = x[rows], None if y is None else y[rows]
        losses.append(loss(copy.deepcopy(model), bx, by).item())  # a copy: BatchNorm counts calls
        if clip_norm is None:
            step = gradient(loss, model, bx, by)
        else:
            step = clipped_gradient(loss, model, bx, by, clip_norm)
        with torch.no_grad():
            for p, g in zip(model.parameters(), step):
                p -= lr * g
    update = [p.detach() - s for p, s in zip(model.parameters(), start)]
    return update, sum(losses) / len(losses)


def weighted_mean(lists, weights):
    """Mean of lists of tensors: floats averaged, of integers the largest."""
    means = []
    for tensors in zip(*lists):
        if tensors[0].is_floating_point():
            total = sum(w * t.double() for w, t in zip(weights, tensors))
            means.append((total / sum(weights)).to(tensors[0].dtype))
        else:
            means.append(torch.stack(tensors).amax(0))
    return means
