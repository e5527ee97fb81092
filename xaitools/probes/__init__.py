"""What if one cue were different?  One file per family of cues; a probe changes one cue and leaves the rest."""

from .base import CUES, FAMILIES, PROBES, Probe, addressed, aliases, change, resolve, select
from .objects import Context, Donors

__all__ = ["CUES", "FAMILIES", "PROBES", "Context", "Donors", "Probe", "addressed", "aliases", "change", "resolve", "select"]
