"""Residents: parked instances whose bodies are kept in memory, so that going on needs no replay. A bounded cache."""

from __future__ import annotations

from collections import OrderedDict

from edda.core.history import InstanceId
from edda.engine.driver import Driver


class Residents:
    """The least recently parked body is evicted first; a replay brings it back."""

    def __init__(self, *, residents_max: int) -> None:
        self._residents_max = residents_max
        self._parked: OrderedDict[InstanceId, Driver] = OrderedDict()

    def keep(self, driver: Driver) -> None:
        if not driver.resident or self._residents_max == 0:
            driver.drop()
            return
        self._parked[driver.instance_id] = driver
        while len(self._parked) > self._residents_max:
            self._parked.popitem(last=False)[1].drop()

    def take(self, instance_id: InstanceId, *, claim: int) -> Driver | None:
        """The body of an instance just claimed, if nobody had the instance in between; else it is dropped."""
        driver = self._parked.pop(instance_id, None)
        if driver is None:
            return None
        if claim == driver.claim + 1:
            return driver
        driver.drop()
        return None

    def clear(self) -> None:
        while self._parked:
            self._parked.popitem()[1].drop()

    def __len__(self) -> int:
        return len(self._parked)
