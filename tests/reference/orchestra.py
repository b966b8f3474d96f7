"""Slow, obvious versions of the clustering steps, written from the algorithm's description."""

import itertools
import math

import torch


def sinkhorn(S, max_iters=100, tol=1e-2, check_every=10):
    """Element by element, in Python floats."""
    N, K = len(S), len(S[0])
    P = []
    for row in S:
        top = max(25 * s for s in row)
        exps = [math.exp(25 * s - top) for s in row]
        P.append([e / sum(exps) for e in exps])
    c = [1 / N] * N
    for iteration in range(1, max_iters + 1):
        r = [1 / K / sum(P[n][k] * c[n] for n in range(N)) for k in range(K)]
        new = [1 / N / sum(P[n][k] * r[k] for k in range(K)) for n in range(N)]
        done = iteration % check_every == 0 and sum(abs(a / b - 1) for a, b in zip(c, new)) < tol
        c = new
        if done:
            break
    A = [[r[k] * P[n][k] * c[n] for k in range(K)] for n in range(N)]
    return [[a / sum(row) for a in row] for row in A]


def balanced_rounding(A):
    """Try every assignment whose sizes are floor or ceil of N / K."""
    N, K = len(A), len(A[0])
    best, best_labels = -math.inf, None
    for labels in itertools.product(range(K), repeat=N):
        sizes = [labels.count(k) for k in range(K)]
        if min(sizes) < N // K or max(sizes) > -(-N // K):
            continue
        value = sum(A[n][k] for n, k in enumerate(labels))
        if value > best:
            best, best_labels = value, labels
    return list(best_labels), best


def unit(v):
    norm = math.sqrt(sum(x * x for x in v))
    return [x / norm for x in v]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def local_clustering(Z, start, iterations=5):
    """Centroids start from the rows ``start``; returns them with their sizes."""
    centroids = [Z[i] for i in start]
    for _ in range(iterations):
        S = [[dot(z, c) for c in centroids] for z in Z]
        labels, _ = balanced_rounding(sinkhorn(S, max_iters=10))
        members = [[z for z, label in zip(Z, labels) if label == k] for k in range(len(start))]
        centroids = [unit([sum(col) / len(m) for col in zip(*m)]) for m in members]
    return centroids, [len(m) for m in members]


def global_clustering(Z, C, temperature, steps, lr=0.5, momentum=0.9, weight_decay=1e-4):
    """SGD with the gradient by central differences, in float64."""

    def loss_of(C_rows, A):
        total = 0.0
        for z, a in zip(Z, A):
            logits = [dot(z, c) / temperature for c in C_rows]
            top = max(logits)
            exps = [math.exp(x - top) for x in logits]
            p = [e / sum(exps) for e in exps]
            total -= dot(a, p) / math.sqrt(dot(a, a) * dot(p, p))
        return total / len(Z)

    C = [list(c) for c in C]
    velocity = [[0.0] * len(c) for c in C]
    loss = math.nan
    for step in range(steps):
        A = sinkhorn([[dot(z, c) for c in C] for z in Z], max_iters=2000, tol=1e-9)
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        loss = loss_of(C, A)
        gradient = [[0.0] * len(c) for c in C]
        for k, c in enumerate(C):
            for d in range(len(c)):
                h, old = 1e-6, c[d]
                c[d] = old + h
                up = loss_of(C, A)
                c[d] = old - h
                down = loss_of(C, A)
                c[d] = old
                gradient[k][d] = (up - down) / (2 * h) + weight_decay * old
        for k in range(len(C)):
            for d in range(len(C[k])):
                v = gradient[k][d] if step == 0 else momentum * velocity[k][d] + gradient[k][d]
                velocity[k][d] = v
                C[k][d] -= rate * v
        C = [unit(c) for c in C]
    return C, loss


def orchestra_loss(z2, tz1, C, logits, rotation, temperature, deg_weight):
    """The loss of one batch, sample by sample."""
    cluster = degeneracy = 0.0
    for b in range(len(z2)):
        q = torch.softmax(torch.tensor([dot(tz1[b], c) / temperature for c in C]), 0).tolist()
        p = torch.softmax(torch.tensor([dot(z2[b], c) / temperature for c in C]), 0).tolist()
        cluster -= sum(qj * math.log(pj) for qj, pj in zip(q, p)) / len(z2)
        chances = torch.softmax(torch.tensor(logits[b]), 0).tolist()
        degeneracy -= math.log(chances[rotation[b]]) / len(z2)
    return cluster, degeneracy, cluster + deg_weight * degeneracy
