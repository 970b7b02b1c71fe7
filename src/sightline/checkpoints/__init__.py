"""What is in a checkpoint folder, read from names, headers and small JSON files; nothing is unpickled."""

from sightline.checkpoints.discover import find_checkpoints, newest_complete
from sightline.checkpoints.parts import Parts, read_parts

__all__ = ["Parts", "find_checkpoints", "newest_complete", "read_parts"]
