"""Recipe: what to train, on which rows and how, from flat YAML and command-line overrides.

``Recipe.load(path, overrides) -> Recipe``; ``recipe.given`` (keys the user set), ``recipe.arguments`` (those
of them that are the Trainer's own), ``recipe.sft_arguments(cadence, hardware, lengths=…)`` (for ``trl.SFTConfig``),
``recipe.lora_arguments()`` (for ``peft.LoraConfig``), ``recipe.model_arguments(hardware)`` (for ``from_pretrained``).
"""

from sightline.training.recipe.settings import Recipe

__all__ = ["Recipe"]
