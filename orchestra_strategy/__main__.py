"""``python -m orchestra_strategy``: the same as ``orchestra-fl``."""

import sys

from orchestra_strategy.cli import process

if __name__ == "__main__":
    sys.exit(process())
