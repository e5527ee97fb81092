"""The tape: sees every operation of one forward pass, and gives those that need it a backward of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakTensorKeyDictionary

from ...errors import MethodError
from .composites import Composite
from .layers import Affine
from .rules import Rule, gradients

Table = Mapping[Callable[..., Any], Callable[..., Any]]


def total(product: Tensor) -> Tensor:
    return product.sum().double()


class Ledger:
    """What each call absorbs in one backward pass."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._amounts: dict[int, Tensor] = {}

    def open(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1

    def add(self, row: int, amount: Tensor) -> None:
        self._amounts[row] = self._amounts[row] + amount if row in self._amounts else amount

    def clear(self) -> None:
        self._amounts.clear()

    def rows(self) -> tuple[tuple[str, float], ...]:
        merged = dict.fromkeys(self._names, 0.0)
        for row, amount in self._amounts.items():
            merged[self._names[row]] += float(amount)
        return tuple(merged.items())


@dataclass(frozen=True, eq=False)
class Source:
    """The layer call that made a tensor, kept so that a batch normalisation behind it can be merged."""

    layer: Affine
    inputs: tuple[Tensor, ...]  # activations and their shadows
    reads_image: bool
    name: str

    def then(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Source:
        return replace(self, layer=self.layer.then(scale, shift))

    def of_image(self, n: int) -> Source:
        """The same call on image ``n`` of the batch only."""
        shape = torch.Size([1, *self.layer.input_shape[1:]])
        return replace(self, layer=replace(self.layer, input_shape=shape), inputs=tuple(each[n : n + 1] for each in self.inputs))


@dataclass(frozen=True, eq=False)
class Trail:
    """What is known of a tensor that carries relevance."""

    shadows: tuple[Tensor, ...] = ()
    reads_image: bool = False  # only linear routing lies between the image and this tensor
    gate: bool = False  # output of a sigmoid: frozen where it multiplies something
    source: Source | None = None

    def rescaled(self, scale: Tensor, shift: Tensor | float = 0.0) -> tuple[Tensor, ...]:
        """Bounds change their units with the activations; ones stay ones, but a factor of zero cuts the way."""
        if len(self.shadows) == 1:
            return (self.shadows[0] * (scale != 0),)
        return ordered([bound * scale + shift for bound in self.shadows])


def ordered(bounds: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The lower bound first: a negative factor exchanges them."""
    return (torch.minimum(*bounds), torch.maximum(*bounds)) if len(bounds) == 2 else tuple(bounds)


@dataclass(eq=False)
class Passes:
    """``more`` backward passes follow, so what they have in common is worth keeping."""

    more: bool = False


class LayerCall(torch.autograd.Function):
    """One call of a layer: forward the layer's own value, backward the rule."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], rule: Rule, layer: Affine, note: Callable[[Tensor], None], passes: Passes,
                shadowed: bool, *inputs: Tensor) -> Any:  # fmt: skip
        value = compute()
        ctx.rule, ctx.layer, ctx.note, ctx.passes, ctx.shares = rule, layer, note, passes, None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(value, *inputs)
        return (value, torch.ones_like(value)) if shadowed else value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, of_ones: Tensor | None = None) -> Any:
        # without their history: the shares live on this node, and must not hold a tensor that holds the node
        value, *inputs = (saved.detach() for saved in ctx.saved_tensors)
        relevance = torch.zeros_like(value) if gradient is None else gradient * value
        if of_ones is not None:
            relevance = relevance + of_ones
        shares = ctx.shares or ctx.rule.shares(ctx.layer, inputs, value)
        ctx.shares = shares if ctx.passes.more else None
        found = gradients(shares, len(inputs), relevance)
        ctx.note(total(relevance) - sum(total(g * a) for g, a in zip(found, inputs, strict=True) if g is not None))
        return None, None, None, None, None, None, *found


class Bend(torch.autograd.Function):
    """An operation that shifts or bends: ``back(g)`` gives the modified gradient, the difference is noted."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], back: Callable[[Tensor, Tensor, Tensor], Tensor],
                note: Callable[[Tensor], None], x: Tensor) -> Tensor:  # fmt: skip
        value = compute()
        ctx.back, ctx.note = back, note
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, value = ctx.saved_tensors
        g = ctx.back(gradient, x, value)
        ctx.note(total(gradient * value) - total(g * x))
        return None, None, None, g


class Dead(torch.autograd.Function):
    """The way through an operation without a rule: harmless where no relevance comes along, as in the boxes beside a class logit."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, refusal: MethodError) -> Tensor:
        ctx.refusal = refusal
        return value.view_as(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if bool(gradient.any()):
            raise ctx.refusal
        return gradient, None


class Tape(TorchFunctionMode):
    """One forward pass.  ``operations`` maps what the network calls to handlers, ``in_place`` ``x.add_`` to ``x.add``."""

    def __init__(self, composite: Composite, names: Mapping[int, str], operations: Table, in_place: Table) -> None:
        super().__init__()
        self.composite, self.names = composite, names
        self._operations, self._in_place = operations, in_place
        self.ledger, self.passes = Ledger(), Passes()
        self.constants: list[tuple[int, Tensor]] = []  # row and leaf of every constant that was added
        self.layers = 0
        # Of tensors: those that carry relevance; those that have a gradient but carry none, such as rearranged parameters;
        # what an operation in place would have made of them; those that are out of date since a view of them was renewed.
        self._trails: MutableMapping[Tensor, Trail] = WeakTensorKeyDictionary()
        self._known: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self._renewed: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        self._outdated: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self._numbers: Counter[str] = Counter()

    # -- what the operations ask for

    def follow(self, out: Tensor, shadows: Sequence[Tensor] = (), reads_image: bool = False, gate: bool = False,
               source: Source | None = None) -> Tensor:  # fmt: skip
        """Note that ``out`` carries relevance."""
        self._trails[out] = Trail(tuple(shadows), reads_image, gate, source)
        return out

    def trail(self, x: Any) -> Trail | None:
        return self._trails.get(x) if isinstance(x, Tensor) else None

    def name(self, operation: str, *parameters: Any) -> str:
        """The module that holds one of the parameters, else the operation with a running number."""
        for parameter in parameters:
            if id(parameter) in self.names:
                return self.names[id(parameter)]
        self._numbers[operation] += 1
        return f"{operation}-{self._numbers[operation]}"

    def note(self, name: str) -> Callable[[Tensor], None]:
        """Opens a row; the result adds to it."""
        row, ledger = self.ledger.open(name), self.ledger
        return lambda amount: ledger.add(row, amount)

    def constant(self, value: Any, like: Tensor) -> Tensor:
        """A leaf with that value, whose relevance counts as absorbed; zeros absorb nothing."""
        leaf = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else like.dtype, device=like.device).detach().clone()
        if not leaf.is_floating_point():
            leaf = leaf.to(like.dtype)
        if bool(leaf.any()):
            self.constants.append((self.ledger.open(self.name("constant", value)), leaf.requires_grad_()))
        return leaf

    def layer(self, source: Source, compute: Callable[[], Tensor]) -> Tensor:
        """The output of a layer call, with the rule that the composite gives it."""
        rule = self.composite.rule(source.layer.kind, source.reads_image)
        inputs = source.inputs if rule.shadow else source.inputs[:1]
        if rule.shadow and len(inputs) < 2:
            lost = f"{source.name}: the {type(rule).__name__} rule cannot be carried through an operation before this layer"
            raise MethodError(f"{lost}; use another composite")
        out = LayerCall.apply(compute, rule, source.layer, self.note(source.name), self.passes, self.composite.hidden_shadows, *inputs)
        value, shadows = (out[0], out[1:]) if isinstance(out, tuple) else (out, ())
        return self.follow(value, shadows, source=source)

    def bend(self, name: str, x: Tensor, compute: Callable[[], Tensor], back: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """``compute()`` with the modified gradient ``back(gradient, x, value)``; the caller follows the result."""
        out: Tensor = Bend.apply(compute, back, self.note(name), x)
        return out

    def outcome(self, scores: Any) -> Tensor:
        scores = self._current(scores)
        if not isinstance(scores, Tensor) or scores.dim() != 1 or len(scores) == 0:
            raise MethodError(f"forward must give a 1-D tensor of scores, got {getattr(scores, 'shape', type(scores).__name__)}")
        if self.trail(scores) is None:
            self._refuse_hidden([scores])
            raise MethodError("the scores do not depend on the image (detached, or computed without gradients?)")
        return scores

    # -- the mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        args, kwargs = mapped(args, self._current), mapped(kwargs, self._current)
        given = list(tensors((args, kwargs)))
        self._refuse_hidden(given)
        if all(self.trail(x) is None for x in given):
            out = func(*args, **kwargs)
            for made in tensors(out):
                if made.requires_grad:
                    self._known[made] = True
            return out
        target = None  # of an operation in place
        if func in self._in_place:
            func, target = self._in_place[func], args[0]
        elif kwargs.get("inplace"):
            kwargs, target = {**kwargs, "inplace": False}, args[0]
        handler = self._operations.get(func)
        if handler is not None:
            out = handler(self, func, *args, **kwargs)
            return out if target is None else self._renew(target, out)
        out = func(*args, **kwargs)
        if not any(made.requires_grad for made in tensors(out)):  # a shape, a comparison or a detached copy is no concern of ours
            return out
        refusal = refuse(operation_name(func), "no rule is known for it; use another method, e.g. occlusion")
        if not isinstance(out, Tensor) and type(out) not in (list, tuple):
            raise refusal
        out = mapped(out, lambda made: self.follow(Dead.apply(made, refusal)) if made.requires_grad else made)  # type: ignore[no-untyped-call]
        return out if target is None else self._renew(target, out)

    def _current(self, x: Any) -> Any:
        """Operations in place run out of place, so that stored activations stay intact; here their result is found again."""
        while isinstance(x, Tensor) and x in self._renewed:
            x = self._renewed[x]
        return x

    def _renew(self, target: Tensor, out: Tensor) -> Tensor:
        if out is not target:
            self._renewed[target] = out
            if target._is_view() and target._base is not None:
                self._outdated[target._base] = True
        return out

    def _refuse_hidden(self, given: list[Tensor]) -> None:
        for x in given:
            base = x._base if x._is_view() else None
            stale = x in self._outdated or (base is not None and (base in self._outdated or base in self._renewed))
            if stale:
                raise MethodError("a tensor was changed in place through a view and then used again; write that step out of place")
            if x.grad_fn is not None and x not in self._trails and x not in self._known:
                raise MethodError(
                    f"an operation ({x.grad_fn.name()}) was hidden from the propagation: scripted modules and custom autograd functions "
                    "cannot be explained by lrp; use the plain module, or another method"
                )


def refuse(what: str, remedy: str) -> MethodError:
    return MethodError(f"relevance cannot pass through {what}; {remedy}")


def operation_name(func: Any) -> str:
    return str(resolve_name(func) or getattr(func, "__name__", repr(func)))


def tensors(x: Any) -> Iterator[Tensor]:
    """All tensors in nested sequences and mappings."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for item in x:
            yield from tensors(item)
    elif isinstance(x, dict):
        yield from tensors(list(x.values()))


def mapped(x: Any, change: Callable[[Any], Any]) -> Any:
    """``x`` with every leaf of nested sequences and mappings changed."""
    if isinstance(x, dict):
        return {key: mapped(item, change) for key, item in x.items()}
    if isinstance(x, (list, tuple)) and type(x) in (list, tuple):
        return type(x)(mapped(item, change) for item in x)
    return change(x)
