"""The engines as the user sees them: what each is, whether it works here, and the capability matrix."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class EngineInfo:
    """One engine's description and its availability on this host."""

    name: str
    summary: str
    architecture: str
    world: str
    execution: str
    capabilities: tuple[str, ...]
    available: bool
    reason: str
    remedy: str
    details: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self)


def list_engines() -> list[EngineInfo]:
    """Every engine, lightest first, probed on this host."""
    return [_describe(name) for name in engine_names()]


def _describe(name: str) -> EngineInfo:
    engine = get(name)
    availability = engine.probe()
    return EngineInfo(
        name=engine.name,
        summary=engine.summary,
        architecture=engine.architecture.value,
        world=engine.world.value,
        execution=engine.execution.value,
        capabilities=tuple(
            capability.value for capability in Capability if capability in engine.capabilities
        ),
        available=availability.available,
        reason=availability.reason,
        remedy=availability.remedy,
        details=dict(availability.details),
    )


def capability_matrix() -> dict[str, dict[str, bool]]:
    """For each capability, which engine claims it; generated from the engines themselves."""
    return {
        capability.value: {name: capability in get(name).capabilities for name in engine_names()}
        for capability in Capability
    }


def matrix_markdown() -> str:
    """The capability matrix as a Markdown table, as the documentation shows it."""
    names = engine_names()
    lines = ["| capability | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for capability, engines in capability_matrix().items():
        ticks = " | ".join("✓" if engines[name] else "-" for name in names)
        lines.append(f"| **{capability}**: {Capability(capability).summary} | {ticks} |")
    return "\n".join(lines)
