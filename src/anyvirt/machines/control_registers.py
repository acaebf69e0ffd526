"""Control and status registers of a hart by name, and its translation of addresses.

Both are the functions of the instruction set itself, run by CPython on the state of the hart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyvirt.devices.bus import BusError
from anyvirt.errors import UsageError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.isa.riscv64_system.hart import MSTATUS, PLACE, SPECIAL, Privilege, Status
from anyvirt.isa.riscv64_system.registers import read_special, write_special
from anyvirt.isa.riscv64_system.translation import translate
from anyvirt.isa.system import AccessType
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from anyvirt.machines.hart import Hart

_NUMBERS = {register.name: number for number, register in riscv64_system.control_registers.items()}
_WORD = 8
_READ_ONLY = 3
"""In the upper two bits of a register's number."""
_OWN = ("cycle_base", "instret_base")


class ControlRegisters:
    """All registers can be read, and set but for counters that only show something.

    Those that are values of their own are set as they are, whatever the guest could write; views of others
    as the guest's instructions would in M-mode.
    """

    def __init__(self, hart: Hart) -> None:
        self._hart = hart

    def __getitem__(self, name: str) -> int:
        """Raises UsageError."""
        number = _number(name)
        if PLACE[number] != SPECIAL:
            return self._hart.system.control(name)
        state: Any = _HartView(self._hart)
        return int(read_special(state, u64(number), u64(self._hart.cpu.instructions)))

    def __setitem__(self, name: str, value: int) -> None:
        """Raises UsageError."""
        number = _number(name)
        if PLACE[number] != SPECIAL:
            self._hart.system.set_control(name, value)
            return
        if number >> 10 == _READ_ONLY:
            raise UsageError(f"{name} only shows something that counts: it cannot be set")
        state: Any = _HartView(self._hart)
        write_special(state, u64(number), u64(value), u64(self._hart.cpu.instructions))
        state.put_back()


def _number(name: str) -> int:
    if name not in _NUMBERS:
        raise UsageError(f"there is no control and status register {name!r}")
    return _NUMBERS[name]


def physical_address(hart: Hart, address: int) -> int:
    """Where what a hart loads from a virtual address is. Raises BusError if that is nowhere."""
    view: Any = _HartView(hart)
    if hart.privilege == Privilege.USER:
        view.privilege = u64(Privilege.SUPERVISOR)
    view.csr[MSTATUS] = view.csr[MSTATUS] | Status.SUM | Status.MXR
    physical, rights = translate(view, u64(address), u64(AccessType.READ))
    if not int(rights) & 1 << AccessType.READ:
        raise BusError(f"hart {hart.number} has nothing at the virtual address {address:#x}")
    return int(physical)


def allowed_accesses(hart: Hart, address: int) -> list[str]:
    """What the hart may do at a virtual address in its present mode, in words, one line for each access."""
    lines = []
    for access, name in (
        (AccessType.READ, "loads"),
        (AccessType.WRITE, "stores"),
        (AccessType.EXECUTE, "instructions"),
    ):
        view: Any = _HartView(hart)
        physical, rights = translate(view, u64(address), u64(access))
        if int(rights) >> access & 1:
            lines.append(f"{name}: {int(physical):#x}")
        else:
            lines.append(f"{name}: {'a page fault' if view.walk_fault == 1 else 'an access fault'}")
    return lines


class _Words:
    """A copy of a register file, as typed Python sees it."""

    def __init__(self, values: MutableSequence[int]) -> None:
        self._values = list(values)

    def __getitem__(self, index: u8 | int) -> u64:
        return u64(self._values[int(index)])

    def __setitem__(self, index: u8 | int, value: u64) -> None:
        self._values[int(index)] = int(value)

    def copy_to(self, values: MutableSequence[int]) -> None:
        """Put everything where it came from."""
        for index, value in enumerate(self._values):
            values[index] = value


class _HartView:
    """A hart as the functions of the instruction set see it; what they change is theirs until put back."""

    csr: _Words

    def __init__(self, hart: Hart) -> None:
        cpu = hart.cpu
        self._hart = hart
        for file in ("csr", "spaces", "large", "pmp_first", "pmp_last"):
            setattr(self, file, _Words(cpu.registers(file)))
        for name in ("privilege", "lines", "walk_fault", "pmp_count", "cycle_base", "instret_base"):
            setattr(self, name, u64(cpu.state(name)))
        self.float_flags, self.float_rounding = u8(cpu.fcsr & 0x1F), u8(cpu.fcsr >> 5 & 7)

    def put_back(self) -> None:
        """Let the hart have what has been changed, and everything that follows from that."""
        cpu = self._hart.cpu
        self.csr.copy_to(cpu.registers("csr"))
        cpu.fcsr = int(self.float_rounding) << 5 | int(self.float_flags)
        for name in _OWN:
            cpu.set_state(name, int(getattr(self, name)))

    def use_area(self, area: u64) -> None:
        """Nothing is remembered here: the hart begins anew with that."""

    forget_area = use_area

    def forget_page(self, area: u64, address: u64) -> None:
        """The same."""

    def want_attention(self) -> None:
        """Every run begins with a look at interrupts."""

    def time_counter(self) -> u64:
        """The counter `time`."""
        return u64(self._hart.now() // 100)

    def load_physical(self, address: u64) -> tuple[u64, bool]:
        """A word of a page table."""
        from anyvirt.cpu.memory import GuestFault

        try:
            return u64(int.from_bytes(self._hart.cpu.memory.view(int(address), _WORD), "little")), True
        except GuestFault:
            return u64(0), False

    def update_physical(self, address: u64, expected: u64, value: u64) -> bool:
        """Looking leaves no marks."""
        return True
