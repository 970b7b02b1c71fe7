"""JudgedEvaluation: of all that anyone's Trainer evaluates, the exact loss that its run is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.runs import Evaluation
from sightline.training.exact_losses import ExactLosses
from sightline.training.harmless import harmless, report_once
from sightline.training.ranks import Ranks


class JudgedEvaluation:
    """Waits for the evaluation of a step, from the Trainer's passes or from who makes one of its own.

    Of several validation sets the first is judged; a set of another size that is evaluated after the end of the
    training is a test set, and no point of the curve.

    Parameters
    ----------
    own_pass : bool
        Score the rows in a pass beside the Trainer's.
    """

    def __init__(self, *, own_pass: bool) -> None:
        self._exact: ExactLosses | None = ExactLosses(own_pass=own_pass)
        self._waiting: Evaluation | None = None
        self._name: str | None = None
        self._rows: int | None = None

    def score_exactly(self) -> None:
        """Make a pass of its own at each evaluation from now on."""
        if self._exact is not None:
            self._exact.own_pass = True

    def expect(self) -> None:
        """Let somebody else give the exact losses by ``receive``: none are taken from the Trainer's passes."""
        self._exact = None

    def receive(self, evaluation: Evaluation) -> None:
        """Take the evaluation that is to be judged next."""
        self._waiting = evaluation

    def take(self, step: int) -> Evaluation | None:
        """Give away the evaluation of a step, None where there is none."""
        waiting, self._waiting = self._waiting, None
        return waiting if waiting is not None and waiting.step == step else None

    @harmless
    def attach(self, model: Any) -> None:
        """Begin to see a model's forwards."""
        if self._exact is not None and model is not None:
            self._exact.attach(model)

    @harmless
    def batch_done(self, loader: Any) -> None:
        """Take the sums of a batch from the Trainer's own pass."""
        if self._exact is not None:
            self._exact.batch_done(loader)

    def forget(self) -> None:
        """Leave out the batches since the last evaluation: they were a prediction."""
        if self._exact is not None:
            self._exact.forget()

    def is_of_another_set(self, metrics: Mapping[str, Any], loader: Any, *, ended: bool) -> bool:
        """Whether an evaluation after the end is not of the validation rows."""
        if "eval_loss" not in metrics:
            return False
        rows = getattr(getattr(loader, "dataset", None), "__len__", lambda: None)()
        if not ended:
            self._rows = rows
        return bool(ended and rows != self._rows)

    @harmless
    def measure(
        self, step: int, metrics: dict[str, float], given: Mapping[str, Any], ranks: Ranks, *, ended: bool
    ) -> Mapping[str, float]:
        """Take the exact loss of what the Trainer has just evaluated.

        Parameters
        ----------
        step : int
            ``global_step``.
        metrics : dict of str to float
            What the Trainer measured; a pass of its own adds ``eval_loss_exact``.
        given : mapping
            What the Trainer passes to ``on_evaluate``.
        ranks : Ranks
            Every rank calls this at the same event.
        ended : bool
            Whether the run has ended.

        Returns
        -------
        mapping of str to float
            The exact loss of a set that is not judged, for a curve of its own.
        """
        if self._exact is None:
            return {}
        name = next((key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")), "eval")
        loader = given.get("eval_dataloader")
        evaluation = self._exact.evaluation(
            step,
            metrics,
            name=name,
            model=given["model"],
            loader=loader,
            train_loader=given.get("train_dataloader"),
            ranks=ranks,
        )
        if self._exact.problem is not None:
            report_once(self, f"exact evaluation: {self._exact.problem}")
        if evaluation is None:
            return {}
        if self._exact.own_pass:
            metrics[f"{name}_loss_exact"] = evaluation.eval_loss
        if self.is_of_another_set(metrics, loader, ended=ended):
            return {}
        self._name = self._name or name
        if name != self._name:
            return {f"{name}_loss_exact": evaluation.eval_loss}
        self.receive(evaluation)
        return {}
