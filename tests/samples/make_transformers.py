"""Makes the samples of the Hugging Face Trainer: a tiny run, stopped half-way and resumed, as files and as text.

    python tests/samples/make_transformers.py

needs torch, transformers, accelerate and tensorboard; the version of transformers names the folder. Nothing is
downloaded: the model has random weights and the rows are numbers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TRAIN = """
import sys, torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
until, output = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(config)
rows = [{"input_ids": (ids := [(7 * i + k * (i % 5)) % 32 for k in range(12)]), "labels": ids} for i in range(88)]
args = dict(output_dir=output, max_steps=40, per_device_train_batch_size=8, learning_rate=2e-2, logging_steps=4,
            eval_strategy="steps", eval_steps=8, save_steps=16, save_total_limit=2, report_to=["tensorboard"], seed=1,
            metric_for_best_model="eval_loss", load_best_model_at_end=True, use_cpu=True)
if transformers.__version__ < "5":
    args["logging_dir"] = output + "/runs"
class Stop(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == until:
            raise SystemExit("stopped")
trainer = Trainer(model=model, args=TrainingArguments(**args), train_dataset=rows[:72], eval_dataset=rows[72:],
                  callbacks=[Stop()])
trainer.train(resume_from_checkpoint=until > 40 or None)
trainer.evaluate()
trainer.save_state()
"""


def main() -> None:
    """Train twice into one folder and keep the small files."""
    import transformers

    folder = HERE / "transformers" / transformers.__version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {**os.environ, "TENSORBOARD_LOGGING_DIR": "output/runs", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as place:
        for until in ("31", "99"):
            with (folder / "console.txt").open("ab") as console:
                command = [sys.executable, "-u", "-c", TRAIN, until, "output"]
                subprocess.run(
                    command, stdout=console, stderr=subprocess.STDOUT, env=environment, cwd=place, check=False
                )
        for file in sorted(Path(place).rglob("*")):
            if file.name == "trainer_state.json" or "tfevents" in file.name:
                target = folder / file.relative_to(place)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    lines = (folder / "console.txt").read_bytes().split(b"\n")
    (folder / "console.txt").write_bytes(b"\n".join(line for line in lines if b"Warning" not in line))


if __name__ == "__main__":
    main()
