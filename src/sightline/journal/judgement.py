"""Findings, diagnoses and decisions as the journal holds them, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.journal.values import (
    from_json_number,
    mapping,
    optional_number,
    optional_text,
    optional_whole_number,
    text,
    to_json_number,
    whole_number,
)
from sightline.runs import Action, Best, Decision, Diagnosis, Finding, Forecast, Onset, Phase, Severity


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as the journal holds it."""
    return {
        "kind": finding.kind,
        "severity": finding.severity.value,
        "message": finding.message,
        "from_step": finding.from_step,
        "to_step": finding.to_step,
        "strength": to_json_number(finding.strength),
        "evidence": {
            name: to_json_number(value) if isinstance(value, float) else value
            for name, value in finding.evidence.items()
        },
    }


def finding_of(payload: Mapping[str, Any]) -> Finding:
    """Return the finding that ``finding_as_json`` wrote."""
    return Finding(
        kind=text(payload["kind"]),
        severity=Severity(payload["severity"]),
        message=text(payload["message"]),
        from_step=optional_whole_number(payload["from_step"]),
        to_step=optional_whole_number(payload["to_step"]),
        strength=optional_number(payload["strength"]),
        evidence=dict(mapping(payload["evidence"])),
    )


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as the journal holds it."""
    return {
        "action": decision.action.value,
        "keep_step": decision.keep_step,
        "keep_checkpoint": decision.keep_checkpoint,
        "why": decision.why,
    }


def decision_of(payload: Mapping[str, Any]) -> Decision:
    """Return the decision that ``decision_as_json`` wrote."""
    return Decision(
        action=Action(payload["action"]),
        keep_step=optional_whole_number(payload["keep_step"]),
        keep_checkpoint=optional_text(payload["keep_checkpoint"]),
        why=text(payload["why"]),
    )


def forecast_as_json(forecast: Forecast) -> dict[str, Any]:
    """Return a forecast as the journal holds it."""
    return {
        "chance": to_json_number(forecast.chance),
        "expected_gain": to_json_number(forecast.expected_gain),
        "near_chance": to_json_number(forecast.near_chance),
        "band": to_json_number(forecast.band),
        "planned_end": forecast.planned_end,
        "warming_up": forecast.warming_up,
    }


def forecast_of(payload: Mapping[str, Any]) -> Forecast:
    """Return the forecast that ``forecast_as_json`` wrote."""
    return Forecast(
        chance=from_json_number(payload["chance"]),
        expected_gain=from_json_number(payload["expected_gain"]),
        near_chance=from_json_number(payload["near_chance"]),
        band=from_json_number(payload["band"]),
        planned_end=optional_whole_number(payload["planned_end"]),
        warming_up=payload["warming_up"] is True,
    )


def diagnosis_as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as the journal holds it."""
    onset, best = diagnosis.onset, diagnosis.best
    return {
        "phase": diagnosis.phase.value,
        "confidence": to_json_number(diagnosis.confidence),
        "findings": [finding_as_json(finding) for finding in diagnosis.findings],
        "onset": None if onset is None else {"step": onset.step, "low": onset.low, "high": onset.high},
        "best": None
        if best is None
        else {
            "step": best.step,
            "eval_loss": to_json_number(best.eval_loss),
            "equivalent_steps": list(best.equivalent_steps),
        },
        "wasted_fraction": to_json_number(diagnosis.wasted_fraction),
        **({} if diagnosis.noise is None else {"noise": to_json_number(diagnosis.noise)}),
        **({} if diagnosis.forecast is None else {"forecast": forecast_as_json(diagnosis.forecast)}),
    }


def diagnosis_of(payload: Mapping[str, Any]) -> Diagnosis:
    """Return the diagnosis that ``diagnosis_as_json`` wrote."""
    onset, best = payload["onset"], payload["best"]
    return Diagnosis(
        phase=Phase(payload["phase"]),
        confidence=optional_number(payload["confidence"]),
        findings=tuple(finding_of(finding) for finding in payload["findings"]),
        onset=None
        if onset is None
        else Onset(whole_number(onset["step"]), whole_number(onset["low"]), whole_number(onset["high"])),
        best=None
        if best is None
        else Best(
            whole_number(best["step"]),
            from_json_number(best["eval_loss"]),
            tuple(whole_number(step) for step in best["equivalent_steps"]),
        ),
        wasted_fraction=optional_number(payload["wasted_fraction"]),
        forecast=None if payload.get("forecast") is None else forecast_of(mapping(payload["forecast"])),
        noise=optional_number(payload.get("noise")),  # absent, as the forecast, where too little is known
    )
