"""Worked examples; run one from the repository's root, e.g. ``python -m examples.leakage``."""
