"""`fraudstream bench`: what the product costs, measured in one run, beside the usual ways of doing it."""
