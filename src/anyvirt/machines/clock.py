"""The time of a machine that runs now with the host's clock, now by counted instructions."""

from __future__ import annotations

from anyvirt.devices.clock import HostClock


class MachineClock(HostClock):
    """Stands still but while the machine runs in real time; counted runs move it on."""

    def __init__(self) -> None:
        """Show 0, standing."""
        super().__init__()
        self._paused_at = 0

    def advance_to(self, when: int) -> None:
        """Show a later time, and let everything happen on the way, each thing at its time. It stands."""
        while (upcoming := self.next_alarm()) is not None and upcoming <= when:
            self._paused_at = max(self.now(), upcoming)
            self.ring_due()
        self._paused_at = max(self.now(), when)

    def restart(self, now: int) -> None:
        """Show another time, perhaps an earlier one, with nothing that is going to happen. It stands."""
        with self._lock:
            for _, _, alarm in self._agenda:
                alarm.cancel()
            self._agenda.clear()
        self._paused_at = now
