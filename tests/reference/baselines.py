"""Slow, obvious versions of the baselines' losses, written from the papers' formulas.

Every function takes lists of lists of floats and loops over samples, pairs and dimensions.
"""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def cosine(a, b):
    return dot(a, b) / math.sqrt(dot(a, a)) / math.sqrt(dot(b, b))


def nt_xent(z1, z2, temperature):
    """Chen et al. 2020, algorithm 1: views 2k-1 and 2k are the two of sample k."""
    views = [view for pair in zip(z1, z2) for view in pair]
    count = len(views)

    def loss(i, j):
        top = math.exp(cosine(views[i], views[j]) / temperature)
        bottom = 0.0
        for k in range(count):
            if k != i:
                bottom += math.exp(cosine(views[i], views[k]) / temperature)
        return -math.log(top / bottom)

    total = 0.0
    for k in range(count // 2):
        total += loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k)
    return total / count


def simsiam_loss(p1, p2, z1, z2):
    """Chen and He 2021, eq. 1 and 4."""
    total = 0.0
    for b in range(len(p1)):
        total += -cosine(p1[b], z2[b]) / 2 - cosine(p2[b], z1[b]) / 2
    return total / len(p1)


def byol_loss(p1, p2, t1, t2):
    """Grill et al. 2020, eq. 2: squared distances of vectors brought to length 1, both ways."""
    total = 0.0
    for prediction, target in (*zip(p1, t2), *zip(p2, t1)):
        q = [x / math.sqrt(dot(prediction, prediction)) for x in prediction]
        z = [x / math.sqrt(dot(target, target)) for x in target]
        total += sum((a - b) ** 2 for a, b in zip(q, z))
    return total / len(p1)


def spectral_loss(z1, z2, mu):
    """HaoChen et al. 2021, eq. 6, on vectors of squared length mu."""
    f1 = [[math.sqrt(mu) * x for x in z] for z in z1]
    f2 = [[math.sqrt(mu) * x for x in z] for z in z2]
    rows = len(f1)
    positive = negative = 0.0
    for i in range(rows):
        positive += dot(f1[i], f2[i]) / rows
        for j in range(rows):
            if i != j:
                negative += dot(f1[i], f2[j]) ** 2 / (rows * (rows - 1))
    return -2 * positive + negative


def rotation_loss(logits, rotation):
    """Gidaris et al. 2018, eq. 3, with one rotation of each sample."""
    total = 0.0
    for scores, answer in zip(logits, rotation):
        chances = [math.exp(s) for s in scores]
        total -= math.log(chances[answer] / sum(chances))
    return total / len(logits)


def orchestra_simple_loss(z1, z2, centroids, temperature, cluster_weight, contrastive_weight):
    """Mean distance to the nearest centroid over all views, plus NT-Xent; both, and the total."""
    cluster = 0.0
    for z in z1 + z2:
        distances = [math.sqrt(sum((a - b) ** 2 for a, b in zip(z, c))) for c in centroids]
        cluster += min(distances) / (len(z1) + len(z2))
    contrastive = nt_xent(z1, z2, temperature)
    return cluster, contrastive, cluster_weight * cluster + contrastive_weight * contrastive


def compactness(Z, centroids):
    total = 0.0
    for z in Z:
        total += max(cosine(z, c) for c in centroids)
    return min(max(total / len(Z), 0.0), 1.0)
