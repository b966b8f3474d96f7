"""A parser of command lines whose errors are one sentence.

It is argparse, of the standard library: eleven commands with plain options need no more, the help
appears at once, and there is no dependency to keep up with.
"""

import argparse
from typing import NoReturn

__all__ = ["SentenceParser"]


class SentenceParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without lines of usage before it; status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence, and end."""
        sentence = message if message.startswith("Expected") else f"{self.prog}: {message}"
        self.exit(2, f"{sentence}\n")
