"""The trust ratio of layer-wise learning rates."""

from __future__ import annotations

import numpy as np

from .compiler import EXACT
from .parts import part


def trust_ratio(size: float, change: float, trust: float, eps: float, one: float) -> float:
    """Return by how much the learning rate of a tensor is larger than that of all, for use in a rule.

    Parameters
    ----------
    size, change : float
        The norms of the parameters, and of what they would be changed by.
    trust, eps : float
        What the first is multiplied by, and what is added to the second: 1 and 0 are as without.
    one : float
        1, as a scalar of the rule: in the dtype of its arithmetic.

    Returns
    -------
    float
        ``trust * size / (change + eps)``, or `one` where either norm is 0: parameters that begin at 0 are trained, too.
        NaN of NaN.

    References
    ----------
    Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888, equation 6.

    Examples
    --------
    >>> from fastopt.rules import trust_ratio
    >>> float(trust_ratio(3.0, 2.0, 1.0, 0.0, 1.0))
    1.5
    """
    # Without a branch, of which a GPU's compiler would make two loops.
    ratio = np.divide(trust * size, change + eps)  # of Python numbers too, where one is 0
    return one if (size == 0) | (change == 0) else ratio


part(trust_ratio, **EXACT)
