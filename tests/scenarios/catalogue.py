"""All scenarios, in the order of the table."""

from __future__ import annotations

from tests.scenarios import away, connection, moving, packets, refused, slow
from tests.scenarios.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *slow.SCENARIOS,
    *packets.SCENARIOS,
    *away.SCENARIOS,
    *refused.SCENARIOS,
    *connection.SCENARIOS,
    *moving.SCENARIOS,
)
