"""What happens by itself: branches expire, and endpoints go to sleep."""

import asyncio
import time

from . import catalog
from .estate import Estate, Place
from .fleet import Fleet
from .gateway import Gateway
from .resources import Resources

# Seconds between two looks.
EVERY = 0.5


class Watch:
    """Looks every half second for what is due."""

    def __init__(
        self, estate: Estate, fleet: Fleet, gateway: Gateway, resources: Resources
    ) -> None:
        self._estate, self._fleet = estate, fleet
        self._gateway, self._resources = gateway, resources

    def start(self) -> asyncio.Task[None]:
        """Start looking; cancel the task to end it."""
        return asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self._resources.remove_expired()
            for place in list(self._estate.places()):
                await self._let_sleep(place)

    async def _let_sleep(self, place: Place) -> None:
        endpoint = place.endpoint
        is_due = time.time() - endpoint.active_at > endpoint.suspend_after > 0
        compute = self._fleet.find(place.folder)
        if not is_due or endpoint.is_suspended or compute is None:
            return
        # Nobody counts statements as they pass: PostgreSQL knows.
        active_at = await catalog.last_activity(compute.door)
        endpoint.active_at = max(endpoint.active_at, active_at or 0.0)
        if time.time() - endpoint.active_at > endpoint.suspend_after:
            await self._gateway.suspend(place)
