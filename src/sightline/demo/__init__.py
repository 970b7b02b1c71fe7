"""The demo: a base model, recipes and rows that need no network, and the command that shows the main job with them.

The base model is committed with its card in ``base/``; `pretrain` makes it again. The rows are made from the running
Python's standard library. Importing this package imports no torch.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sightline.demo.corpus import forgetting_text
from sightline.demo.dataset import DemoData, DemoFiles, demo_rows, write_demo_data
from sightline.errors import DataError, ModelError

__all__ = [
    "RECIPES",
    "DemoData",
    "DemoFiles",
    "base_model_path",
    "demo_rows",
    "forgetting_text",
    "recipe_path",
    "write_demo_data",
]

#: Names that `recipe_path` knows.
RECIPES = ("healthy", "overfit")


def base_model_path() -> Path:
    """Folder of the embedded base model: a Llama in the Hugging Face form, with its tokenizer.

    Raises
    ------
    ModelError
        If the installed package lacks it, or is run from an archive, where no model can be loaded from.
    """
    folder = _inside("base")
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ModelError(
            "the demo's base model is not in this installation of sightline (demo/base/model.safetensors): "
            "install the wheel unpacked with pip, or make the model: python -m sightline.demo.pretrain FOLDER"
        )
    return folder


def recipe_path(name: str) -> Path:
    """Training recipe of the demo, a YAML file.

    Parameters
    ----------
    name : {"healthy", "overfit"}
        ``healthy`` learns and settles; ``overfit`` has too few rows and turns.

    Raises
    ------
    DataError
        If there is no recipe of that name in this installation.
    """
    path = _inside(f"{name}.yaml") if name in RECIPES else None
    if path is None or not path.is_file():
        raise DataError(f"no recipe {name!r} in this installation's demo folder (known: {', '.join(RECIPES)})")
    return path


def _inside(name: str) -> Path | None:
    """Path of a file of this package; None if the package lies in an archive."""
    place = files("sightline.demo").joinpath(name)
    return place if isinstance(place, Path) else None
