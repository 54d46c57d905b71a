"""The experiment: every method on every pair of a split, judged alike; ``python -m lorarar.study``."""
