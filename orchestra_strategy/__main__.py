"""``python -m orchestra_strategy``: the same as ``orchestra-fl``."""

import sys

from orchestra_strategy.cli import main

if __name__ == "__main__":
    sys.exit(main())
