"""What is in a checkpoint folder, read from names, headers and small JSON files; nothing is unpickled."""

from sightline.checkpoints.discover import find_checkpoints
from sightline.checkpoints.manifest import MANIFEST, Manifest, damaged_files, read_manifest, write_manifest
from sightline.checkpoints.parts import Parts, read_parts
from sightline.checkpoints.problem import Problem
from sightline.checkpoints.verify import Verification, verify

__all__ = [
    "MANIFEST",
    "Manifest",
    "Parts",
    "Problem",
    "Verification",
    "damaged_files",
    "find_checkpoints",
    "read_manifest",
    "read_parts",
    "verify",
    "write_manifest",
]
