"""Orthonormal rows, for projections that solve small systems of equations in any metric."""

from math import sqrt

from numbelief.sets.projector import EPS, ROUNDED

#: A row of which no more than this share is left belongs to the space of the others.
SPANNED = ROUNDED * EPS


def orthogonalize(A, steps, W, L, order, m, n, spanned):
    """Fill W and L with W W' = 1 and A sqrt(steps) = L W, in an order of rows; return the rank.

    By the Gram-Schmidt process with pivoting, done twice: rows of 1e±16 keep their small numbers.
    Its sums may be reordered.
    """
    for k in range(m):
        order[k] = k
        total = 0.0
        for i in range(n):
            W[k * n + i] = A[k * n + i] * sqrt(steps[i])
            total += W[k * n + i] ** 2
        L[m * m + k] = sqrt(total)
    for j in range(m):
        best, length = j, -1.0
        for k in range(j, m):
            total = 0.0
            for i in range(n):
                total += W[order[k] * n + i] ** 2
            # A row that the earlier ones span is left with rounding errors only.
            if sqrt(total) > spanned * L[m * m + order[k]] and total > length:
                best, length = k, total
        if length <= 0:
            return j
        order[j], order[best] = order[best], order[j]
        row = order[j] * n
        for k in range(j):
            other, dot = order[k] * n, 0.0
            for i in range(n):
                dot += W[row + i] * W[other + i]
            for i in range(n):
                W[row + i] -= dot * W[other + i]
            L[order[j] * m + k] += dot
        length = 0.0
        for i in range(n):
            length += W[row + i] ** 2
        length = sqrt(length)
        L[order[j] * m + j] = length
        for i in range(n):
            W[row + i] /= length
        for k in range(j + 1, m):
            other, dot = order[k] * n, 0.0
            for i in range(n):
                dot += W[row + i] * W[other + i]
            for i in range(n):
                W[other + i] -= dot * W[row + i]
            L[order[k] * m + j] = dot
    return m
