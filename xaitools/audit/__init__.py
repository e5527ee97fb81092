"""What joins probes, models and metrics into runs that can be trusted, stopped and resumed."""

from .examples import Example
from .plan import Plan, make_plan
from .recount import recount
from .run import folder_names, probe, probe_models

__all__ = ["Example", "Plan", "folder_names", "make_plan", "probe", "probe_models", "recount"]
