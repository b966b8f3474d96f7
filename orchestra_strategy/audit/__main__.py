"""``python -m orchestra_strategy.audit``."""

from orchestra_strategy.audit.command import main

if __name__ == "__main__":
    main()
