"""Text files that are the old one or the new one, never a part, and their owner's alone."""

from orchestra_strategy.files import PathLike, write_private

__all__ = ["PathLike", "write_text"]


def write_text(path: PathLike, text: str) -> None:
    """Write ``text`` as UTF-8 so that ``path`` holds the old file or the new one, never a part.

    A report may show samples: its owner alone can read it, and the folder, if it is new.

    Args:
        path: The file; missing folders are made.
        text: Its whole content.

    Raises:
        OSError: The file cannot be written; ``path`` is not touched.
    """
    write_private(path, text.encode("utf-8"))
