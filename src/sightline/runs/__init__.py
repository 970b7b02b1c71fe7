"""What can be known of a run: frozen records, no I/O, no statistics."""

from sightline.runs.builder import RunBuilder
from sightline.runs.checkpoint import Checkpoint
from sightline.runs.curve import Curve
from sightline.runs.decision import Action, Decision
from sightline.runs.evaluation import Evaluation, ExampleLosses, common_rows, perplexity
from sightline.runs.finding import Best, Diagnosis, Finding, Forecast, Onset, Phase, Severity
from sightline.runs.run import Run, Segment, Status

__all__ = [
    "Action",
    "Best",
    "Checkpoint",
    "Curve",
    "Decision",
    "Diagnosis",
    "Evaluation",
    "ExampleLosses",
    "Finding",
    "Forecast",
    "Onset",
    "Phase",
    "Run",
    "RunBuilder",
    "Segment",
    "Severity",
    "Status",
    "common_rows",
    "perplexity",
]
