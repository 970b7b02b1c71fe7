"""What a verdict means, in plain words: used by the page, the live display and the plain lines alike."""

from __future__ import annotations

from sightline.decisions import Verdict, gold_choice
from sightline.decisions.decide import deciding_score
from sightline.diagnosis.context import percent, plural, portion
from sightline.runs import Action, Curve, Diagnosis, Phase, Run, Severity, Status
from sightline.terminal.text import number_text, plural_unit, printable, steps_text, unit_word

PHASE_TITLES: dict[Phase, str] = {
    Phase.UNDERFITTING: "STILL LEARNING (underfitting)",
    Phase.HEALTHY: "HEALTHY",
    Phase.OVERFITTING: "OVERFITTING (memorising)",
    Phase.DIVERGED: "DIVERGED (the training broke)",
    Phase.UNDECIDED: "UNDECIDED",
}

_PHASE_SENTENCES: dict[Phase, str] = {
    Phase.UNDERFITTING: "The loss was still falling when last seen: there is more to learn.",
    Phase.HEALTHY: "What the model learns also holds on rows it never saw: the validation loss falls or has settled.",
    Phase.OVERFITTING: "The model learns its training rows by heart and gets worse on rows it never saw: the "
    "validation loss has risen beyond its noise.",
    Phase.DIVERGED: "The training loss blew up or is no number any more: what was learnt after that is lost.",
    Phase.UNDECIDED: "The log does not hold enough to say how the run went.",
}

_FEW_ROWS: dict[Phase, str] = {
    Phase.UNDERFITTING: "The loss was still falling when last seen.",
    Phase.HEALTHY: "The validation loss of these few rows falls or has settled.",
    Phase.OVERFITTING: "The validation loss of these few rows has risen beyond its noise.",
}
"""What a phase means where the validation rows are too few to speak for others."""

_TOO_LITTLE = "too little to go by", _PHASE_SENTENCES[Phase.UNDECIDED]
_UNDECIDED: dict[str, tuple[str, str]] = {
    "rise_suspected": (
        "a rise is suspected",
        "The validation loss may have turned up, which is not enough to call it.",
    ),
    "rise_in_warmup": ("risen in the warm-up", "The validation loss rises while the learning rate still warms up."),
    "above_best": (
        "above its best",
        "The validation loss stands above its best, in a course too uneven to be called a rise.",
    ),
    "both_losses_rise": ("both losses rise", "Training and validation loss rise together: unstable, not memorising."),
    "validation_set_small": ("too few rows to tell", "The validation loss has risen, but on too few rows to tell."),
    "too_noisy": ("too noisy to tell", "The validation loss is too noisy to say how the run went."),
    "evaluation_lost": (
        "the last evaluation is no number",
        "The last evaluation gave no number, so how the model stands now is not known.",
    ),
    "evaluation_gap": (
        "one evaluation after a gap",
        "Only one evaluation tells how the later part of the run went.",
    ),
    "solved_or_leaked": (
        "solved, or leaked",
        "Next to nothing is left of the validation loss: the task is solved, or its rows are among the training rows.",
    ),
    "evaluation_unchanged": (
        "the evaluation does not move",
        "The validation loss is the same again and again while the model learns: it says nothing of the model.",
    ),
    "not_learning": ("nothing is learnt", "The training loss does not fall, so there is nothing to judge."),
}
"""Why nothing is decided, by the finding that says so: in a few words, and in a sentence."""

_SCORE_DISAGREES = (
    "The validation loss has risen, and yet more answers are right: the model grows too sure of the ones it gets wrong."
)

_KNOWN_BY_HEART = (
    "The validation loss falls or has settled, but the training rows are known by heart: the gap between the two losses "
    "is memorising."
)

PHASE_STYLES: dict[Phase, str] = {
    Phase.UNDERFITTING: "cyan",
    Phase.HEALTHY: "green",
    Phase.OVERFITTING: "red",
    Phase.DIVERGED: "red",
    Phase.UNDECIDED: "yellow",
}

SEVERITY_WORDS: dict[Severity, tuple[str, str]] = {
    Severity.CRITICAL: ("CRITICAL", "bold red"),
    Severity.WARNING: ("WARNING", "bold yellow"),
    Severity.INFO: ("NOTE", "bold cyan"),
}

FORMAT_NAMES: dict[str, str] = {
    "journal": "Sightline run folder",
    "trainer_state": "Trainer state",
    "console": "console output",
    "tensorboard": "TensorBoard events",
    "wandb": "Weights & Biases run",
    "csv": "CSV",
    "json": "JSON history",
    "jsonl": "JSON lines",
    "mlflow": "MLflow run",
    "trackio": "trackio run",
}


def phase_line(verdict: Verdict, *, short: bool = False) -> str:
    """Return the phase, how sure it is and since when, on one line; ``short`` leaves the explanation out."""
    diagnosis = verdict.diagnosis
    title = diagnosis.phase.value if short else PHASE_TITLES[diagnosis.phase]
    if diagnosis.phase is Phase.UNDECIDED:
        title += f" ({_undecided(diagnosis)[0]})"
    if diagnosis.onset is not None:
        title += f" since {unit(verdict.run)} {diagnosis.onset.step}"
        if diagnosis.onset.low < diagnosis.onset.high:
            title += f" (between {diagnosis.onset.low} and {diagnosis.onset.high})"
    if diagnosis.confidence is None:
        return title
    rows = _few_rows(diagnosis)
    if rows is None:
        return f"{title}, {portion(diagnosis.confidence)} sure"
    which = "that row" if rows == 1 else "these rows"
    return f"{title} on {plural(rows, 'validation row')} only, {portion(diagnosis.confidence)} sure of {which}"


def phase_sentence(diagnosis: Diagnosis) -> str:
    """Return what the phase means, for someone who does not know the word."""
    kinds = {finding.kind for finding in diagnosis.findings}
    if "score_disagrees" in kinds:
        return _SCORE_DISAGREES
    if diagnosis.phase is Phase.HEALTHY and "memorised" in kinds:
        return _KNOWN_BY_HEART
    if diagnosis.phase is Phase.UNDECIDED:
        return _undecided(diagnosis)[1]
    if _few_rows(diagnosis) is not None:
        return f"{_FEW_ROWS[diagnosis.phase]} On other rows it may be otherwise."
    return _PHASE_SENTENCES[diagnosis.phase]


def live_phase_line(verdict: Verdict, *, short: bool = False) -> str:
    """Return the phase of a run that goes on: what cannot be said yet is early, not undecided."""
    diagnosis = verdict.diagnosis
    if diagnosis.phase is not Phase.UNDECIDED:
        return phase_line(verdict, short=short)
    words = "too early to say" if _undecided(diagnosis) is _TOO_LITTLE else _undecided(diagnosis)[0]
    return words if short else words.upper()


def _few_rows(diagnosis: Diagnosis) -> int | None:
    """Return on how few rows a phase of the validation loss rests, None where they are enough or not known."""
    if diagnosis.phase not in _FEW_ROWS:
        return None
    found = diagnosis.finding("few_validation_rows")
    rows = None if found is None else found.evidence.get("rows")
    return rows if isinstance(rows, int) else None


def _undecided(diagnosis: Diagnosis) -> tuple[str, str]:
    """Return why nothing is decided, in a few words and in a sentence."""
    return next((_UNDECIDED[found.kind] for found in diagnosis.findings if found.kind in _UNDECIDED), _TOO_LITTLE)


def chosen_by(verdict: Verdict) -> str | None:
    """Name what chooses the checkpoint in the place of the loss, which the chart shows; None where the loss does."""
    if gold_choice(verdict.run) is not None:
        return "the gold set"
    score = deciding_score(verdict.diagnosis)
    return None if score is None else printable(score.evidence.get("score", "the task score"), 40)


def keep_line(verdict: Verdict) -> str | None:
    """Say which checkpoint to keep and, where it is not the loss that the chart shows, by what; None if nothing tells."""
    line, chosen = _keep_line(verdict), chosen_by(verdict)
    return line if line is None or chosen is None else f"{line}; chosen by {chosen}, the chart shows the loss"


def _keep_line(verdict: Verdict) -> str | None:
    decision, run = verdict.decision, verdict.run
    if decision.keep_step is None:
        return None
    loss = None if run.eval_loss is None else run.eval_loss.at(decision.keep_step)
    valued = "" if loss is None else f", validation loss {number_text(loss)}"
    what = f"{unit(run)} {decision.keep_step}{valued}"
    if decision.keep_checkpoint is not None:
        kept = printable(decision.keep_checkpoint, 60)
        other = next((c for c in run.checkpoints if c.path.name == decision.keep_checkpoint), None)
        equal = other is not None and other.step != decision.keep_step
        return f"{kept}, as good as {what}, which was not saved" if equal else f"{kept} ({what})"
    saved = [c for c in run.checkpoints if not c.deleted]
    if not saved:
        return f"{what}; the log names no checkpoint of it"
    wanted = decision.keep_step
    nearest = min(saved, key=lambda c: (abs(c.step - wanted), c.step))
    return f"{what}; no checkpoint was saved there, the nearest is {printable(nearest.path.name, 60)}"


def action_words(verdict: Verdict) -> str:
    """Return what to do in a word or two; a run that is over can only be trained further, or not."""
    run, forecast = verdict.run, verdict.diagnosis.forecast
    over = run.has_ended and run.status is not Status.RUNNING
    if verdict.decision.action is Action.STOP:
        return "Stop" if not over else "Train no further"
    if verdict.diagnosis.finding("evaluation_unchanged") is not None:
        return "Mend the evaluation"
    if not over:
        return "Go on"
    return "Train longer" if forecast is not None and not forecast.warming_up else "Why"


def last_sentence(verdict: Verdict) -> str | None:
    """Answer whether the last evaluation is as good as the best, None where there is no best."""
    best, curve = verdict.diagnosis.best, verdict.run.eval_loss
    if best is None or curve is None or not len(curve):
        return None
    name, step, value = unit(verdict.run), int(curve.steps[-1]), float(curve.values[-1])
    if step == best.step:
        return f"Yes: the last evaluation ({name} {step}) is the best one."
    if value != value or abs(value) == float("inf"):
        return f"No: the last evaluation ({name} {step}) is {number_text(value)}."
    if step in best.equivalent_steps:
        noise = verdict.diagnosis.noise
        known = "" if not noise or noise < 1e-4 else f" with a noise of {100.0 * noise:.2g} % an evaluation"
        return f"Yes: {name} {step} cannot be told apart from the best{known}."
    above = value - best.eval_loss
    share = f" ({percent(above / best.eval_loss)})" if best.eval_loss > 0 else ""
    return f"No: {name} {step} is {number_text(above, 3)}{share} above the best."


def equivalents_sentence(verdict: Verdict) -> str | None:
    """Name the steps that are as good as the best one, None where there is no other."""
    best = verdict.diagnosis.best
    if best is None or len(best.equivalent_steps) < 2:
        return None
    steps = steps_text(best.equivalent_steps)
    return steps.replace("steps", units(verdict.run))


def wasted_sentence(verdict: Verdict) -> str | None:
    """Say how much of the run came after its best step, None where nothing was wasted."""
    wasted, best, last = verdict.diagnosis.wasted_fraction, verdict.diagnosis.best, verdict.run.last_step
    if not wasted or best is None or last is None:
        return None
    name = unit(verdict.run)
    return f"{portion(wasted)} of the run ({last - best.step} {units(verdict.run)}) came after the best {name}."


def status_words(run: Run, told_below: str = "") -> str:
    """Return how the run stands, without its reason where the page gives it below."""
    if run.end_reason and run.end_reason == told_below:
        return f"{run.status.value} early"
    reason = "" if not run.end_reason else f": {printable(run.end_reason, 200)}"
    if run.status is Status.UNKNOWN:
        unfinished = "end unknown" if run.max_steps is None else "unfinished: broken off or still running"
        reached = "its plan is done" if run.has_ended else unfinished
        return reached if not reason else f"ended{reason}"
    return f"{run.status.value}{reason}"


def unit(run: Run) -> str:
    """Return what the steps of a run count: step, epoch, or entry of the log."""
    return unit_word(run.step_unit)


def units(run: Run) -> str:
    """Return what the steps of a run count, of several."""
    return plural_unit(unit(run))


def value_near(curve: Curve | None, step: int) -> float | None:
    """Return the value logged at a step, or the last one before it; the first one after it where there is none."""
    if curve is None or not len(curve):
        return None
    before = curve.until(step)
    return float(before.values[-1]) if len(before) else float(curve.values[0])
