"""A crew of actors on Ray, each with a model of its own: on a cluster at ``address``, or on this machine, for the run alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import XaiError, first_line
from .clock import Clock
from .engine import Crew, Died, Hand, Payload, Station, Task


class Actors(Crew):
    """Raises XaiError where ray is not installed, or nothing answers at ``address``.

    An actor takes as many CPUs as the plan has threads, and a GPU where the model is on one.
    """

    def __init__(self, payload: Payload, count: int, facts: Mapping[str, Any], address: str | None) -> None:
        super().__init__(count)
        try:
            import ray
        except ImportError:
            raise XaiError("engine ray: ray is not installed; pip install 'xaitools[ray]', or take --engine local") from None
        self._ray, self._payload, self._begun = ray, payload, not ray.is_initialized()
        threads = int(facts["threads"])
        own = {"num_cpus": count * threads, "include_dashboard": False} if address is None else {}
        if self._begun:
            try:
                ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
            except Exception as error:  # Ray raises plain ones
                where = "could not be started here" if address is None else f"does not answer at --address {address}"
                raise XaiError(f"engine ray: Ray {where} ({first_line(error)[:160]}); see ray status, or take --engine local") from None
        gpus = 1 if str(facts["model"]["device"]).startswith("cuda") else 0
        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(Station)

    def hire(self) -> Hand:
        return _Actor(self._ray, self._actor.remote(self._payload))

    def ready(self, hands: Sequence[Hand]) -> Sequence[Hand]:
        by_answer = {hand.answers[0]: hand for hand in hands if isinstance(hand, _Actor)}
        found, _ = self._ray.wait(list(by_answer), num_returns=1)
        return [by_answer[each] for each in found]

    def close(self) -> None:
        super().close()
        if self._begun:
            self._ray.shutdown()


class _Actor(Hand):
    def __init__(self, ray: Any, actor: Any) -> None:
        super().__init__()
        self._ray, self.actor, self.answers = ray, actor, list[Any]()

    def send(self, task: Task) -> None:
        self.answers.append(self.actor.answer.remote(task))

    def receive(self) -> tuple[Any, Clock] | Exception:
        try:
            return self._ray.get(self.answers.pop(0))
        except self._ray.exceptions.RayActorError as error:
            raise Died(f"({str(error).strip().splitlines()[0]})") from None

    def stop(self) -> None:
        self._ray.kill(self.actor)
