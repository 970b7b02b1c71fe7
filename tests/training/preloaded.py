"""What every forked child needs; imported once by the fork server, without running anything."""

import trl.trainer.sft_trainer
from peft import PeftModel

import sightline.cli
import sightline.terminal.display
import sightline.training.command

__all__ = ["PeftModel", "sightline", "trl"]
