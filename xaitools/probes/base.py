"""What a probe is, and the one call that applies it.

A probe is one function in a file of this package,

    (sample, severity, generator, context, *, name=default, ...) -> Sample

that changes one cue of a sample of the dataset and moves the truth along.  Seeds, severity 0, the range [0, 1],
parameters and errors belong to the call, not to the probe.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError, XaiError, unknown
from ..registry import Registry
from ..types import Sample

if TYPE_CHECKING:
    from .objects import Context

CUES = ("domain", "texture", "background", "pose", "cooccurrence", "artifact")
"""Families whose cue can be a shortcut."""

FAMILIES = (*CUES, "adversarial", "distortion")
"""In the order in which reports list them; ``control`` is a family of its own that nobody asks for."""

COMMON = {"bootstraps": 2000}
"""Parameters that every probe has: how many bootstrap replicates its intervals rest on."""

MEASURED = "measured"
"""Key of ``Sample.tags`` under which a probe leaves numbers for the records, name -> float."""


@dataclass(frozen=True)
class Probe:
    """One entry of ``PROBES``.

    name       unique; of two families' members of one name each is registered as FAMILY.NAME
    change     the function; a batched one takes and returns lists of samples and generators of equal image size
    needs      among "objects" (masks, boxes or object classes), "outlines" (the same, but not boxes alone), "donors" (other images,
               a class each, whose background is taken), "others" (another image), "stimuli" (pictures of shape against texture),
               "gradients", "pixels" (a logit of every class at every pixel) and "training" (images that are not scored, as
               many as its parameter ``train`` says)
    degrees    severities 1 to 5 differ; else there are only 0 (unchanged) and 1
    default    named by its family's name alone
    batched    works on several images at once
    subset     how many images are drawn for it when there are more; None for all
    images     name of the probe whose images are scored (``gap`` scores those of ``mixed_rand``)
    reference  "clean", or the probe with whose images it is compared
    control    the probe that runs along, with the same parameters: as large a change that is not aimed
    members    names of the probes that it stands for; it then changes no image itself
    moves      pixels move while the labels stay, so that a part of its drop is misplaced truth
    measure    what is reported where that is no drop: "shape_bias", of two conditions, by shape and by texture
    elsewhere  its items are those of the dataset that its parameter ``donors`` names, with their own truth
    defaults   parameters that ``--set NAME.PARAMETER=VALUE`` may change
    about      one sentence for reports
    """

    name: str
    family: str
    change: Callable[..., Any]
    needs: frozenset[str] = frozenset()
    degrees: bool = True
    default: bool = False
    batched: bool = False
    subset: int | None = None
    images: str = ""
    reference: str = "clean"
    control: str = ""
    members: tuple[str, ...] = ()
    moves: bool = False
    measure: str = ""
    elsewhere: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def severity(self, wanted: int) -> int:
        """The severity that is run when ``wanted`` is asked for."""
        return wanted if self.degrees else min(wanted, 1)


PROBES: Registry[Probe] = Registry("probe", "xaitools.probes")


def probe(name: str, *, family: str, needs: Iterable[str] = (), **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function under ``name``; ``facts`` are fields of ``Probe``.  The function's keywords are its parameters."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        keywords = inspect.signature(function).parameters.values()
        defaults = {each.name: each.default for each in keywords if each.kind is each.KEYWORD_ONLY} | COMMON
        if "subset" in facts:
            defaults["subset"] = facts["subset"]
        about = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")
        PROBES.add(name, Probe(name, family, function, frozenset(needs), images=name, defaults=defaults, about=about, **facts))
        return function

    return add


def contrast(name: str, *, of: str, against: str, about: str, default: bool = False) -> None:
    """Registers a probe that scores the images of one probe against those of another instead of the clean ones."""
    PROBES.add(name, replace(PROBES[of], name=name, images=of, reference=against, about=about, default=default))


def variant(name: str, *, of: str, about: str, **defaults: Any) -> None:
    """Registers a probe that differs from another only in the values of parameters where nobody sets them."""
    entry = PROBES[of]
    PROBES.add(
        name, replace(entry, name=name, images=name, default=False, degrees=False, defaults={**entry.defaults, **defaults}, about=about)
    )


def aggregate(name: str, *, of: Sequence[str], family: str, about: str, **facts: Any) -> None:
    """Registers a probe that stands for several: its numbers are means over them and over the severities.

    It has every parameter of its members and hands it on to those that have it; ``facts`` are fields of ``Probe``.
    """
    members = [PROBES[each] for each in of]
    defaults = {key: value for each in reversed(members) for key, value in each.defaults.items()}
    needs = frozenset().union(*(each.needs for each in members))
    PROBES.add(name, Probe(name, family, _refused, needs, members=tuple(of), defaults=defaults, about=about, **facts))


def _refused(*args: Any, **params: Any) -> Any:
    raise XaiError("a probe that stands for several changes no image itself; name one of its members")


def select(names: Sequence[str] | None = None) -> list[Probe]:
    """The probes that ``names`` mean: families (their default members) or members; None means every family.

    A member may be written ``family.member``, which decides where two families share a name: a bare name is the
    member registered under it, and where there are only ``family.member`` of several families it is refused.
    Raises XaiError with the nearest names for an unknown one.

    >>> [each.name for each in select(["background", "artifact.remove"])]
    ['gap', 'artifact.remove']
    """
    offered = [each for each in PROBES.values() if each.family in FAMILIES]
    order = {each.name: (FAMILIES.index(each.family), each.name) for each in offered}
    chosen = {each.name: each for name in (names or _families(offered)) for each in _meant(name.strip(), offered)}
    if not chosen:
        raise XaiError("no probe was named; give families or members, e.g. background,texture")
    return sorted(chosen.values(), key=lambda each: order[each.name])


def _families(offered: Sequence[Probe]) -> list[str]:
    return [family for family in FAMILIES if any(each.family == family and each.default for each in offered)]


def _meant(name: str, offered: Sequence[Probe]) -> list[Probe]:
    family = [each for each in offered if each.family == name and each.default]
    if family:
        return family
    exact = [each for each in offered if name == each.name]
    found = exact or [each for each in offered if name in aliases(each)]
    if len(found) > 1:
        raise XaiError(f"probe {name!r} is in several families; write {' or '.join(each.name for each in found)}")
    if not found:
        raise XaiError(unknown("probe or family", name, {*_families(offered), *(each.name for each in offered)}))
    return found


def addressed(params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``params`` {name: {parameter: value}} by registered names, where a name is any that ``select`` takes for a member.

    A bare name that several families share means the member that has the parameter.  Names of no probe stay as they
    are.  Raises XaiError where several have it.

    >>> addressed({"remove": {"region": "1,1,5,5"}, "domain.fog": {"bootstraps": 100}})
    {'artifact.remove': {'region': '1,1,5,5'}, 'fog': {'bootstraps': 100}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, values in params.items():
        meant = [name] if name in PROBES else [each for each in PROBES if name in aliases(PROBES[each])]
        for key, value in values.items():
            having = [each for each in meant if key in PROBES[each].defaults] if len(meant) > 1 else meant
            if len(having) > 1:
                raise XaiError(f"{name}.{key}: several probes have it; write {' or '.join(f'{each}.{key}' for each in having)}")
            found.setdefault((having or meant or [name])[0], {})[key] = value
    return found


def aliases(entry: Probe) -> set[str]:
    """All names of a member: as registered, with its family, and bare."""
    bare = entry.name.removeprefix(f"{entry.family}.")
    return {entry.name, bare, f"{entry.family}.{bare}"}


def resolve(entry: Probe, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All parameters of a probe: its defaults with ``overrides`` of the same types.

    Raises XaiError for an unknown name or a value of another type.
    """
    values = dict(entry.defaults)
    for name, value in (overrides or {}).items():
        if name not in values:
            raise XaiError(unknown(f"parameter of {entry.name}", name, values))
        values[name] = _like(entry.defaults[name], value, f"{entry.name}.{name}")
    return values


def _like(default: Any, value: Any, name: str) -> Any:
    kind = float if default is None else type(default)
    try:
        if value is None or kind is bool:
            return bool(int(value)) if value is not None else None
        number = kind(value)
        if kind is int and number != float(value):
            raise ValueError
        return number
    except (TypeError, ValueError):
        raise XaiError(f"{name}={value!r}: expected {'a number' if kind is float else f'a value like {default!r}'}") from None


def draws(seed: int, name: str, severity: int, sample_id: str) -> np.random.Generator:
    """Random numbers that belong to one change of one sample: order and batches cannot move them."""
    key = hashlib.sha256("\0".join((str(seed), name, str(severity), sample_id)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big")))


def change(
    entry: Probe | str,
    samples: Sequence[Sample],
    severity: int,
    context: Context,
    *,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
) -> list[Sample | XaiError]:
    """``samples`` with the probe's cue changed, or for each why that cannot be done.

    Severity 0 is the identity for every probe.  A batched probe needs samples of one image size.
    """
    entry = PROBES[entry] if isinstance(entry, str) else entry
    if severity not in range(6) or (severity > 1 and not entry.degrees):
        raise XaiError(f"severity {severity} of {entry.name}: expected 0 to {5 if entry.degrees else 1}; 0 is unchanged")
    if severity == 0:
        return [_checked(entry, sample) for sample in samples]
    values = {name: value for name, value in resolve(entry, params).items() if name != "subset" and name not in COMMON}
    generators = [draws(seed, entry.images, severity, sample.id) for sample in samples]
    if entry.batched:
        done = entry.change(list(samples), severity, generators, context, **values)
        return [_checked(entry, sample) for sample in done]
    return [_one(entry, sample, severity, generator, context, values) for sample, generator in zip(samples, generators, strict=True)]


def _one(
    entry: Probe, sample: Sample, severity: int, generator: np.random.Generator, context: Context, values: Mapping[str, Any]
) -> Sample | XaiError:
    try:
        return _checked(entry, entry.change(sample, severity, generator, context, **values))
    except DataError as error:
        return error


def _checked(entry: Probe, sample: Sample) -> Sample | XaiError:
    if not bool(torch.isfinite(sample.image).all()):
        return DataError(f"{entry.name} made NaN or infinite pixels")
    return replace(sample, image=sample.image.clamp(0, 1))
