"""Why did the model decide so, and does it cheat?  Everything starts from these names."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "read_image": "data",
    "load_dataset": "data",
    "load_model": "zoo",
    "wrap": "zoo",
    "check_model": "attribution.check",
    "explain": "attribution",
    "explain_many": "attribution",
    "evaluate": "metrics.evaluate",
    "probe": "audit",
    "audit": "audit",
    "counterfactual_table": "audit.counterfactual",
    "repair": "audit.repair",
    "strongest_activations": "audit.activations",
    "figure": "report.figures",
    "panels_figure": "report.panels",
    "activations_figure": "report.activations",
    "trace_figure": "report.trace",
    "ledger_figure": "report.ledger",
    "save": "report",
    "Target": "targets",
    "Sample": "types",
    "Prediction": "types",
    "Decision": "types",
    "Attribution": "types",
    "Trace": "types",
    "Activations": "types",
    "ProbeResult": "types",
    "AuditReport": "types",
    "XaiError": "errors",
}

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; ``xaitools --help`` and a typo should not wait for it
    if name not in _NAMES:
        raise AttributeError(f"module 'xaitools' has no attribute {name!r}")
    module = importlib.import_module(f".{_NAMES[name]}", __name__)
    return module if name == "audit" else getattr(module, name)  # the package of that name is the function too


def __dir__() -> list[str]:
    return sorted(__all__)
