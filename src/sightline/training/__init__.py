"""A fine-tune under watch: recipe, data, checks, the Trainer and the callback (extra: train)."""
