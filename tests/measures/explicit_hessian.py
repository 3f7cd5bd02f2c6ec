"""The Hessian of softmax regression, written out."""

import numpy as np

from tests.measures.closed_forms import IMAGES


def softmax_hessian(kernel):
    """E[x x' (x) (diag(p) - p p')] of the cross-entropy, in x W."""
    images = IMAGES.astype(np.float64)
    logits = images @ kernel
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    blocks = [
        np.kron(np.outer(image, image), np.diag(share) - np.outer(share, share))
        for image, share in zip(images, shares, strict=True)
    ]
    return np.mean(blocks, axis=0)
