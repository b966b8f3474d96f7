"""``python -m orchestra_strategy.audit``: the same as ``orchestra-fl audit``."""

import sys

from orchestra_strategy.cli import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
