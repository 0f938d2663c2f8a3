"""What a project tree gives out and uses, as people add it up: everything below a node, whether it may be lent or not.

The scheduler's sums (`Tree.subtree`, `Quotas.usage`) leave out what projects keep for themselves.
"""

import numpy as np

from atoll.scheduler.quota import Amounts, Quotas, Tree


def nominal(tree: Tree) -> Amounts:
    """What each node and those below it were given."""
    return _summed(tree, tree.nominal)


def usage(quotas: Quotas) -> Amounts:
    """What the projects at and below each node use."""
    tree, own = quotas.tree, quotas.usage.copy()
    for level in tree.levels[1:]:
        passed_on = np.maximum(0, quotas.usage[level] - tree.local[level])
        np.subtract.at(own, tree.parent_numbers[level], passed_on)
    return _summed(tree, own)


def _summed(tree: Tree, amounts: Amounts) -> Amounts:
    sums = amounts.copy()
    for level in reversed(tree.levels[1:]):
        np.add.at(sums, tree.parent_numbers[level], sums[level])
    return sums
