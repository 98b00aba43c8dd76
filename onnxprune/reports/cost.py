"""What a million inferences cost, by the latency measured on this machine and a price for an hour of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxprune.errors import SettingError
from onnxprune.reports.latency import BASELINE

INFERENCES = 1_000_000
SECONDS_PER_HOUR = 3600


def check_price(price: float | None) -> None:
    """Raises SettingError: the price is no positive number."""
    if price is not None and not 0 < price < float("inf"):
        raise SettingError(f"--price is {price:g}: give what an hour of the machine costs, for example 0.10")


def costs(latency: Mapping[str, Any], price: float) -> dict[str, float]:
    """The cost of a million inferences, one after the other, by the name of the latency; `price`: of an hour."""
    milliseconds = latency.get("milliseconds") or {}
    return {name: each / 1e3 * INFERENCES / SECONDS_PER_HOUR * price for name, each in milliseconds.items()}


def cost_card(record: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Title, baseline, fastest way to run the pruned model, and details; None without a price or latencies."""
    price, latency = record.get("price"), record.get("latency") or {}
    found = costs(latency, price) if price else {}
    pruned = {name: cost for name, cost in found.items() if name != BASELINE}
    if not pruned:
        return None
    best = min(pruned, key=pruned.__getitem__)
    way = best.removeprefix("pruned, ")
    details = f"at {price:g} an hour for {latency['machine']}, one inference after the other, {way}"
    return "cost of a million inferences", f"{found[BASELINE]:.3g}", f"{pruned[best]:.3g}", details
