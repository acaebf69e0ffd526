"""What gdb is told about a CPU: its registers in order, and the target description that names them.

Follows "Debugging with GDB", appendix "Target Descriptions". The registers come from the description of the
instruction set; what gdb insists on (names of features, aliases) is a table here, one entry an architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias
from xml.sax.saxutils import quoteattr

from anyvirt.debug.target import TargetError
from anyvirt.isa.description import DELAY_SLOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.fields import RegisterFile


@dataclass(frozen=True)
class FileRegister:
    """A register of a numbered file."""

    file: str
    number: int


@dataclass(frozen=True)
class StateValue:
    """A piece of state that the instruction set declares."""

    name: str


@dataclass(frozen=True)
class AttributeBits:
    """Some bits of an attribute of executors, such as `pc` or `fcsr`."""

    name: str
    shift: int = 0
    bits: int = 64
    clear: int = 0
    """Bits that are not the debugger's to see."""


@dataclass(frozen=True)
class Constant:
    """What gdb insists on and the CPU does not have."""

    value: int = 0


PROGRAM_COUNTER = AttributeBits("pc")


@dataclass(frozen=True)
class JoinedBits:
    """Values that stand beside each other in one register: where each begins, and how many bits it has."""

    parts: tuple[tuple[FileRegister | StateValue, int, int], ...]


@dataclass(frozen=True)
class Computed:
    """What executors keep in another form: functions of an executor that read and write it."""

    read: Callable[[Any], int]
    write: Callable[[Any, int], None]


@dataclass(frozen=True)
class ControlRegister:
    """A control register of a machine's CPU, which only a machine as the target can look up."""

    name: str


Place: TypeAlias = (
    FileRegister | StateValue | AttributeBits | Constant | JoinedBits | Computed | ControlRegister
)


def read_place(cpu: Any, place: Place) -> int:  # noqa: ANN401 - any executor
    """The value at a place of an executor."""
    match place:
        case FileRegister(file, number):
            return int(cpu.registers(file)[number])
        case StateValue(name):
            return int(cpu.state(name))
        case AttributeBits(name, shift, bits):
            return (int(getattr(cpu, name)) & ~place.clear) >> shift & (1 << bits) - 1
        case Constant(value):
            return value
        case JoinedBits(parts):
            return sum((read_place(cpu, part) & (1 << width) - 1) << start for part, start, width in parts)
        case Computed(read):
            return read(cpu)
        case ControlRegister(name):
            raise TargetError(f"{name} cannot be read without the machine")


def write_place(cpu: Any, place: Place, value: int) -> None:  # noqa: ANN401 - any executor
    """Change the value at a place of an executor."""
    match place:
        case FileRegister(file, number):
            cpu.registers(file)[number] = value
        case StateValue(name):
            cpu.set_state(name, value)
        case AttributeBits(name, shift, bits):
            mask = (1 << bits) - 1 << shift
            setattr(cpu, name, getattr(cpu, name) & ~mask | value << shift & mask)
        case JoinedBits(parts):
            for part, start, width in parts:
                write_place(cpu, part, value >> start & (1 << width) - 1)
        case Computed(write=write):
            write(cpu, value)
        case ControlRegister(name):
            raise TargetError(f"{name} cannot be set without the machine")
        case Constant():
            return


@dataclass(frozen=True)
class Register:
    """One register as gdb sees it."""

    name: str
    bits: int
    place: Place
    type: str = "int"
    group: str | None = None

    @property
    def size(self) -> int:
        """Bytes in packets."""
        return self.bits // 8

    def xml(self) -> str:
        """Its element in a target description."""
        group = f" group={quoteattr(self.group)}" if self.group else ""
        return f'<reg name={quoteattr(self.name)} bitsize="{self.bits}" type={quoteattr(self.type)}{group}/>'


@dataclass(frozen=True)
class Feature:
    """A named group of registers; gdb knows the standard ones by name."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""
    """XML of the types that the registers use beyond the predefined ones."""
    is_rare: bool = False
    """Whether gdb has to ask for each of these registers: they are many, and seldom wanted. Such features are
    the last ones."""

    def xml(self) -> str:
        """Its element in a target description."""
        body = "".join(register.xml() for register in self.registers)
        return f"<feature name={quoteattr(self.name)}>{self.types}{body}</feature>"


@dataclass(frozen=True)
class TargetDescription:
    """All registers of a CPU. A register's number in packets is its place in `registers`."""

    architecture: str | None
    """gdb's name for it; None where gdb has to be told by its user or the program."""
    features: tuple[Feature, ...]
    byte_order: Literal["little", "big"] = "little"
    expedited: tuple[str, ...] = field(default=("pc",))
    """Registers that gdb gets with each stop, so that it need not ask."""
    counter: str = "pc"
    """The name of the program counter."""
    system: str | None = None
    """gdb's name for the operating system under which programs are. In a machine, where it is `none`, a step
    may lead into an exception: otherwise gdb only puts a breakpoint where it thinks that the step ends."""

    @cached_property
    def registers(self) -> tuple[Register, ...]:
        """The registers of all features in order."""
        return tuple(register for feature in self.features for register in feature.registers)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Register numbers by name."""
        return {register.name: number for number, register in enumerate(self.registers)}

    @cached_property
    def common(self) -> tuple[Register, ...]:
        """Those that are transferred all at once."""
        return tuple(
            register for feature in self.features if not feature.is_rare for register in feature.registers
        )

    @cached_property
    def program_counter(self) -> int:
        """The number of the program counter."""
        return self.numbers[self.counter]

    def xml(self) -> str:
        """The document that qXfer:features:read answers with."""
        architecture = f"<architecture>{self.architecture}</architecture>" if self.architecture else ""
        system = f"<osabi>{self.system}</osabi>" if self.system else ""
        features = "".join(feature.xml() for feature in self.features)
        return (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">'
            f'<target version="1.0">{architecture}{system}{features}</target>'
        )


def describe(isa: InstructionSet) -> TargetDescription:
    """The registers of an instruction set: as gdb wants them where it knows the architecture."""
    return _LAYOUTS.get(isa.name, _plain)(isa)


def _file(file: RegisterFile, names: Iterable[str] | None = None, **details: Any) -> Iterator[Register]:  # noqa: ANN401
    for number, name in enumerate(names or file.names):
        yield Register(name, file.width, FileRegister(file.name, number), **details)


def _counter(isa: InstructionSet, name: str = "pc") -> Register:
    return Register(name, isa.address_bits, PROGRAM_COUNTER, "code_ptr")


def _plain(isa: InstructionSet) -> TargetDescription:
    """Everything there is under its own name, in one feature."""
    files = [register for file in isa.register_files.values() for register in _file(file)]
    state = [Register(scalar.name, 64, StateValue(scalar.name)) for scalar in isa.scalars.values()]
    feature = Feature(f"org.anyvirt.{isa.name}", (*files, _counter(isa), *state))
    return TargetDescription(None, (feature,), isa.byte_order)


_RISCV_DOUBLE = (
    '<union id="riscv_double"><field name="float" type="ieee_single"/>'
    '<field name="double" type="ieee_double"/></union>'
)


def _riscv(isa: InstructionSet) -> TargetDescription:
    """Section "RISC-V Features" of the manual; gdb calls s0 fp."""
    x = isa.register_files["x"]
    names = ["fp" if name == "s0" else name for name in x.names]
    pointers = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}
    integers = tuple(
        Register(name, x.width, FileRegister("x", number), pointers.get(name, "int"), "general")
        for number, name in enumerate(names)
    )
    features = [Feature("org.gnu.gdb.riscv.cpu", (*integers, _counter(isa)))]
    if "f" in isa.register_files:
        floats = tuple(_file(isa.register_files["f"], type="riscv_double", group="float"))
        status = (
            Register("fflags", 32, AttributeBits("fcsr", 0, 5), group="float"),
            Register("frm", 32, AttributeBits("fcsr", 5, 3), group="float"),
            Register("fcsr", 32, AttributeBits("fcsr", 0, 8), group="float"),
        )
        features.append(Feature("org.gnu.gdb.riscv.fpu", (*floats, *status), _RISCV_DOUBLE))
    if isa.system is not None:
        features += [_riscv_mode(isa), _riscv_control(isa)]
    architecture = f"riscv:rv{x.width}"
    system = "none" if isa.system is not None else None
    return TargetDescription(architecture, tuple(features), isa.byte_order, ("pc", "sp", "fp"), system=system)


def _riscv_mode(isa: InstructionSet) -> Feature:
    """gdb shows what the value means."""
    register = Register("priv", isa.register_files["x"].width, StateValue("privilege"), group="general")
    return Feature("org.gnu.gdb.riscv.virtual", (register,))


_RISCV_CONTROL = "org.gnu.gdb.riscv.csr"
_COUNTS_NOTHING = ("hpm", "mhpm", "tselect", "tdata", "tinfo")


def _riscv_control(isa: InstructionSet) -> Feature:
    """The control and status registers, with their fields by name where they have any."""
    from anyvirt.isa.riscv64_system.register_fields import FIELDS

    width = isa.register_files["x"].width
    registers, types = [], ""
    for register in sorted(isa.control_registers.values(), key=lambda register: register.number):
        name = register.name
        if name.startswith(_COUNTS_NOTHING) or name in ("fflags", "frm", "fcsr"):
            continue
        fields = FIELDS.get(name)
        registers.append(
            Register(name, width, ControlRegister(name), f"{name}_fields" if fields else "int", "csr")
        )
        if fields:
            body = "".join(
                f'<field name={quoteattr(field.name)} start="{field.lowest}" '
                f'end="{field.lowest + field.width - 1}"/>'
                for field in fields
            )
            types += f'<flags id="{name}_fields" size="{width // 8}">{body}</flags>'
    return Feature(_RISCV_CONTROL, tuple(registers), types, is_rare=True)


def _aarch64(isa: InstructionSet) -> TargetDescription:
    """Section "AArch64 Features": the general registers, and condition flags as bits of cpsr."""
    general = tuple(
        Register(f"x{number}", 64, FileRegister("x", number), group="general") for number in range(31)
    )
    sp = Register("sp", 64, FileRegister("x", isa.register_files["x"].names.index("sp")), "data_ptr")
    flags = JoinedBits(tuple((StateValue(name), 31 - place, 1) for place, name in enumerate("nzcv")))
    core = Feature(
        "org.gnu.gdb.aarch64.core", (*general, sp, _counter(isa), Register("cpsr", 32, flags, "int"))
    )
    return TargetDescription("aarch64", (core,), isa.byte_order, ("pc", "sp", "x29"))


def _mips(isa: InstructionSet) -> TargetDescription:
    """Section "MIPS Features": general registers by number; gdb insists on some of CP0 and CP1."""
    general = tuple(Register(f"r{number}", 32, FileRegister("r", number)) for number in range(32))
    multiplied = tuple(Register(name, 32, StateValue(name)) for name in ("lo", "hi"))
    counter = Register("pc", 32, AttributeBits("pc", clear=DELAY_SLOT), "code_ptr")
    floats = tuple(Register(f"f{number}", 32, Constant(), "ieee_single") for number in range(32))
    features = (
        Feature("org.gnu.gdb.mips.cpu", (*general, *multiplied, counter)),
        Feature(
            "org.gnu.gdb.mips.cp0",
            tuple(Register(name, 32, Constant()) for name in ("status", "badvaddr", "cause")),
        ),
        Feature(
            "org.gnu.gdb.mips.fpu",
            (*floats, *(Register(name, 32, Constant(), group="float") for name in ("fcsr", "fir"))),
        ),
    )
    return TargetDescription("mips", features, isa.byte_order, ("pc", "r29", "r31"))


def _ppc(isa: InstructionSet) -> TargetDescription:
    """Section "PowerPC Features": the condition register in one, overflow and carry as bits of xer."""
    general = tuple(Register(f"r{number}", 32, FileRegister("r", number)) for number in range(32))
    fields = JoinedBits(tuple((FileRegister("cr", number), 28 - 4 * number, 4) for number in range(8)))
    carries = tuple((StateValue(name), 31 - place, 1) for place, name in enumerate(("so", "ov", "ca")))
    exceptions = JoinedBits((*carries, (StateValue("string_length"), 0, 7)))
    core = Feature(
        "org.gnu.gdb.power.core",
        (
            *general,
            _counter(isa),
            Register("msr", 32, Constant()),
            Register("cr", 32, fields),
            Register("lr", 32, StateValue("lr"), "code_ptr"),
            Register("ctr", 32, StateValue("ctr")),
            Register("xer", 32, exceptions),
        ),
    )
    return TargetDescription("powerpc:common", (core,), isa.byte_order, ("pc", "r1"))


def _x86(isa: InstructionSet) -> TargetDescription:
    from anyvirt.debug.x86_registers import x86_description

    return x86_description(isa)


def _sparc(isa: InstructionSet) -> TargetDescription:
    from anyvirt.debug.sparc_registers import sparc_description

    return sparc_description(isa)


_LAYOUTS: dict[str, Callable[[InstructionSet], TargetDescription]] = {
    "riscv64": _riscv,
    "riscv32": _riscv,
    "riscv64_system": _riscv,
    "aarch64": _aarch64,
    "mips": _mips,
    "mipsel": _mips,
    "ppc": _ppc,
    "i386": _x86,
    "x86_64": _x86,
    "sparc": _sparc,
}
"""What gdb insists on, by instruction set."""
