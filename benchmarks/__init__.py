"""Comparisons that print JSON: the product beside a peer or a floor, in one run."""
