"""The page of `sightline read`: one run, what became of it, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from sightline.decisions import Verdict
from sightline.decisions.rising import rising_rows
from sightline.runs import Finding, Run, perplexity
from sightline.terminal.chart import MIN_WIDTH, Marks, draw_chart, losses
from sightline.terminal.judgement_page import answer_lines
from sightline.terminal.layout import columns, fit, for_terminal, words_width, wrap
from sightline.terminal.text import UNICODE, Glyphs, number_text, printable
from sightline.terminal.words import (
    FORMAT_NAMES,
    PHASE_STYLES,
    SEVERITY_WORDS,
    action_words,
    chosen_by,
    equivalents_sentence,
    keep_line,
    last_sentence,
    phase_line,
    phase_sentence,
    status_words,
    unit,
    value_near,
    wasted_sentence,
)

MOST_DAMAGE_LINES = 5
_WIDEST = 120


def verdict_page(verdict: Verdict, *, width: int = 80, height: int = 14, glyphs: Glyphs = UNICODE) -> list[Text]:
    """Lay a verdict out for a person.

    Parameters
    ----------
    verdict : Verdict
        The run, its diagnosis and its decision.
    width : int
        Characters a line may take; under 40 the chart is left out.
    height : int
        Lines of the chart's plot.
    glyphs : Glyphs
        Signs the terminal can show.

    Returns
    -------
    list of Text
        Safe to print: whatever the log brought along is escaped.
    """
    run, diagnosis = verdict.run, verdict.diagnosis
    text_width = words_width(min(width, _WIDEST), glyphs)
    lines = [*_header(run, text_width, verdict.decision.why), Text()]
    lines += _verdict(verdict, text_width)
    if width >= MIN_WIDTH and (run.train_loss is not None or run.eval_loss is not None):
        best = None if diagnosis.best is None else diagnosis.best.step
        lines += [
            Text(),
            *draw_chart(
                losses(run.train_loss, run.eval_loss),
                width=text_width,
                height=height,
                marks=Marks(best, diagnosis.onset, _kept_otherwise(verdict)),
                glyphs=glyphs,
                x_name=unit(run),
            ),
        ]
    if numbers := list(_numbers(verdict, text_width)):
        lines += [Text(), *numbers]
    if facts := list(_facts(verdict, text_width)):
        lines += [Text(), *facts]
    if run.judgements:
        lines += [Text(), Text("On the gold set", style="bold")]
        lines += answer_lines(run.judgements[-1], width=text_width, glyphs=glyphs)
    if rows := list(_rising(verdict, text_width)):
        lines += [Text(), *rows]
    if diagnosis.findings:
        lines += [Text(), Text("What was found", style="bold")]
        for finding in diagnosis.findings:
            lines += _finding(finding, run, text_width)
    if run.damage:
        lines += [Text(), *_damage(run, text_width)]
    return for_terminal(lines, glyphs, width)


def _kept_otherwise(verdict: Verdict) -> list[tuple[int, str]]:
    """Mark the step that is kept for its score, on a chart that shows the losses."""
    chosen, step = chosen_by(verdict), verdict.decision.keep_step
    return [] if chosen is None or step is None else [(step, f"kept by {chosen}: {unit(verdict.run)} {step}")]


def _header(run: Run, width: int, why: str) -> Iterator[Text]:
    yield Text(fit(printable(run.name) or "run", width), style="bold")
    path = printable(run.path)
    n_train = 0 if run.train_loss is None else len(run.train_loss)
    n_eval = 0 if run.eval_loss is None else len(run.eval_loss)
    facts = [printable(FORMAT_NAMES.get(run.format, run.format), 40)]
    if run.last_step is not None:
        planned = f" of {run.max_steps}" if run.max_steps and run.max_steps != run.last_step else ""
        epoch = _last_epoch(run)
        facts.append(f"{unit(run)} {run.last_step}{planned}" + ("" if epoch is None else f" (epoch {epoch:.3g})"))
    facts += [_counted(n_train, "training loss", "es"), _counted(n_eval, "evaluation", "s"), status_words(run, why)]
    if path != printable(run.name):
        yield Text(fit(path, width), style="dim")
    yield from wrap(" · ".join(facts), width, style="dim")


def _last_epoch(run: Run) -> float | None:
    """Return how often the run has seen its training rows, None where the log does not say or counts in epochs."""
    curve = run.curves.get("epoch")
    if run.step_unit != "step" or curve is None or not len(curve):
        return None
    last = float(curve.values[-1])
    return last if 0 < last < 1e6 else None


def _verdict(verdict: Verdict, width: int) -> Iterator[Text]:
    """Say the phase, what it means, which checkpoint to keep and why."""
    phase = verdict.diagnosis.phase
    yield from wrap(phase_line(verdict), width, style=f"bold {PHASE_STYLES[phase]}")
    yield from wrap(phase_sentence(verdict.diagnosis), width)
    keep = keep_line(verdict)
    if keep is not None:
        yield from wrap(keep, width, first="→ Keep ", rest="  ", style="bold")
    why = printable(_said_once(verdict), 400)
    yield from wrap(f"{action_words(verdict)}: {why}", width, first="→ ", rest="  ")


def _said_once(verdict: Verdict) -> str:
    """Return why, without the sentence of a finding that stands below."""
    why = verdict.decision.why
    for finding in verdict.diagnosis.findings:
        why = why.replace(f": {finding.message}", "; how, and what to do, stands below")
    return why


def _numbers(verdict: Verdict, width: int) -> Iterator[Text]:
    """Set the losses at the best and at the last evaluation beside each other."""
    run, best = verdict.run, verdict.diagnosis.best
    evals = run.eval_loss
    steps: list[tuple[str, int]] = []
    if best is not None:
        steps.append(("best", best.step))
    if evals is not None and len(evals):
        steps.append(("last", int(evals.steps[-1])))
    elif run.train_loss is not None and len(run.train_loss):
        steps.append(("last", int(run.train_loss.steps[-1])))
    if len(steps) == 2 and steps[0][1] == steps[1][1]:
        steps = [("best and last", steps[0][1])]
    if not steps:
        return
    narrow = width < 60
    rows = [
        [
            ("", ""),
            *((f"{word} ({unit(run)} {step})" if not narrow else f"{word} {step}", "dim") for word, step in steps),
        ]
    ]
    for label, short, values in _number_rows(run, [step for _, step in steps]):
        rows.append([(short if narrow else label, ""), *((number_text(value), "bold") for value in values)])
    yield from columns(rows, "l" + "r" * len(steps), gap=2 if narrow else 4, flexible=0, width=width)
    if evals is not None and run.train_loss is not None and "probe_loss" not in run.curves:
        past = "past steps" if run.step_unit == "step" else "what came before"
        yield from wrap(
            f"The gap compares a logged training loss (average over {past}, in training mode) with a validation "
            "loss measured now: a small one means nothing.",
            width,
            style="dim",
        )


def _number_rows(run: Run, steps: list[int]) -> Iterator[tuple[str, str, list[float | None]]]:
    """Yield the label, its short form and the value at each step."""
    evals = [None if run.eval_loss is None else run.eval_loss.at(step) for step in steps]
    probe = run.curves.get("probe_loss")
    has_evals = any(value is not None for value in evals)
    if has_evals:
        yield f"validation loss ({printable(run.eval_metric, 24)})", "validation", evals
        reported = run.curves.get("eval_loss_reported")
        if reported is not None:
            told = [reported.at(step) for step in steps]
            yield "as the Trainer reports it", "as reported", told
            off = [None if t is None or e is None else t - e for t, e in zip(told, evals, strict=True)]
            yield "  off by", "  off by", off
        if all(value is None or value >= 0 for value in evals):
            exact = any(e.losses is not None for e in run.evaluations)
            yield (
                ("perplexity" if exact else "perplexity, exp(loss)"),
                "perplexity",
                [None if value is None else perplexity(value) for value in evals],
            )
    trains = [value_near(run.train_loss, step) for step in steps]
    if run.train_loss is not None:
        yield f"training loss ({printable(run.train_metric, 24)})", "training", trains
    if probe is not None:
        trains = [value_near(probe, step) for step in steps]
        yield "training rows scored like validation", "probe", trains
    gaps = [None if e is None or t is None else e - t for e, t in zip(evals, trains, strict=True)]
    if has_evals and any(gap is not None for gap in gaps):
        yield "gap: validation − training" + (" (equal terms)" if probe is not None else ""), "gap", gaps
    if has_evals and probe is not None and run.train_loss is not None:
        logged = [value_near(run.train_loss, step) for step in steps]
        apart = [None if e is None or t is None else e - t for e, t in zip(evals, logged, strict=True)]
        yield "gap to the logged training loss", "gap, logged", apart


def _facts(verdict: Verdict, width: int) -> Iterator[Text]:
    by_loss = chosen_by(verdict) is not None
    facts = (
        ("By the loss, is the last as good? " if by_loss else "Is the last as good? ", last_sentence(verdict)),
        ("As good as the best by the loss: " if by_loss else "As good as the best: ", equivalents_sentence(verdict)),
        ("Wasted: ", wasted_sentence(verdict)),
    )
    for label, sentence in facts:
        if sentence is not None:
            yield from wrap(sentence, width, first=label, rest="  ", style="bold")


def _rising(verdict: Verdict, width: int) -> Iterator[Text]:
    """Name the validation rows that memorising costs most, where the run knows its rows."""
    rising = rising_rows(verdict.run, verdict.diagnosis)
    if rising is None:
        return
    changes, of = rising.changes, unit(verdict.run)
    yield from wrap(
        f"Rows that memorising costs most, {of} {rising.from_step} to {rising.to_step}", width, style="bold"
    )
    for place, contribution, per_token, tokens in rising.worst():
        what = f"{printable(place, 80)}: {per_token:+.3f} nats per token, {tokens} tokens"
        yield from wrap(what, width, first=f"  {contribution:+.4f}  ", rest="           ")
    worse, better = int((changes.contributions > 0).sum()), int((changes.contributions < 0).sum())
    yield from wrap(
        f"{len(changes.drivers())} of {len(changes.rows)} rows make up half of what got worse; {worse} got worse, "
        f"{better} better, {changes.total:+.4f} nats per token together.",
        width,
        first="  ",
        style="dim",
    )


def _finding(finding: Finding, run: Run, width: int) -> Iterator[Text]:
    word, style = SEVERITY_WORDS[finding.severity]
    where = ""
    if finding.from_step is not None:
        to = finding.to_step
        where = f", {unit(run)} {finding.from_step}" + (f" to {to}" if to not in (None, finding.from_step) else "")
    head = f"{word:<8}  " if width >= 60 else f"{word}  "
    indent = " " * (2 + (len(head) if width >= 60 else 2))
    kind = printable(finding.kind, 60).replace("_", " ") + where
    yield Text("  ").append(head, style=style).append(fit(kind, max(8, width - 2 - len(head))))
    yield from wrap(printable(finding.message, 800), width, first=indent)


def _damage(run: Run, width: int) -> Iterator[Text]:
    yield Text("What could not be read", style="bold")
    for sentence in run.damage[:MOST_DAMAGE_LINES]:
        yield from wrap(printable(sentence, 300), width, first="  • ")
    if len(run.damage) > MOST_DAMAGE_LINES:
        yield Text(f"  and {len(run.damage) - MOST_DAMAGE_LINES} more")


def _counted(n: int, noun: str, plural: str) -> str:
    return f"no {noun}{plural}" if n == 0 else f"{n} {noun}{'' if n == 1 else plural}"
