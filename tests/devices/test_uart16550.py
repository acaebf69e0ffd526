"""The UART by its data sheet: registers, FIFOs, interrupts and their priorities, loopback."""

import pytest

from anyvirt.devices.bus import Wire
from anyvirt.devices.clock import VirtualClock
from anyvirt.devices.uart16550 import FIFO_LENGTH, InterruptId, Register, Uart16550

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7
FIFOS = 0xC0
"""IIR and FCR: FIFOs are on; FCR: trigger at 14."""


@pytest.fixture
def uart():
    clock, wire, printed = VirtualClock(), Wire(), []
    chip = Uart16550(clock, wire, output=printed.append)
    chip.clock, chip.wire, chip.printed = clock, wire, printed
    return chip


def get(uart, register):
    return uart.read(register, 1)


def put(uart, register, value):
    uart.write(register, 1, value)


def read_all(uart):
    content = bytearray()
    while get(uart, LSR) & 1:
        content.append(get(uart, DATA))
    return bytes(content)


def test_after_power_on(uart):
    values = [get(uart, register) for register in Register]
    assert values == [0, 0, InterruptId.NONE, 0, 0, 0x60, 0xB0, 0]
    assert not uart.wire.level


def test_divisor_and_scratch(uart):
    put(uart, LCR, 0x83)
    put(uart, DATA, 0x12)
    put(uart, IER, 0x34)
    assert (get(uart, DATA), get(uart, IER)) == (0x12, 0x34)
    put(uart, LCR, 0x03)
    assert (get(uart, DATA), get(uart, IER)) == (0, 0)
    put(uart, SCR, 0xA5)
    assert get(uart, SCR) == 0xA5
    assert not uart.printed


def test_what_is_printed_arrives_by_lines_or_soon(uart):
    for byte in b"one\ntwo":
        put(uart, DATA, byte)
    assert uart.printed == [b"one\n"]
    uart.clock.advance_to(20_000_000)
    assert uart.printed == [b"one\n", b"two"]
    put(uart, DATA, ord("3"))
    uart.flush()
    uart.flush()
    assert uart.printed[2:] == [b"3"]


def test_much_without_lines_arrives_in_large_pieces(uart):
    for _ in range(10_000):
        put(uart, DATA, 0)
    uart.flush()
    assert len(b"".join(uart.printed)) == 10_000
    assert len(uart.printed) == 10


def test_a_character_without_fifos(uart):
    put(uart, IER, 1)
    assert uart.input(b"ab") == 1
    assert uart.wire.level
    assert get(uart, IIR) == InterruptId.RECEIVED_DATA
    assert uart.input(b"b") == 0
    assert get(uart, DATA) == ord("a")
    assert not uart.wire.level
    assert get(uart, IIR) == InterruptId.NONE


def test_fifos_interrupt_at_their_trigger_level(uart):
    for code, level in enumerate((1, 4, 8, 14)):
        put(uart, FCR, 0)
        put(uart, FCR, 1 | code << 6)
        put(uart, IER, 1)
        assert uart.input(b"x" * (level - 1)) == level - 1
        assert not uart.wire.level
        uart.input(b"y")
        assert get(uart, IIR) == InterruptId.RECEIVED_DATA | FIFOS
        get(uart, DATA)
        assert not uart.wire.level


def test_a_fifo_times_out_four_characters_after_the_last(uart):
    put(uart, LCR, 0x83)
    put(uart, DATA, 2)
    put(uart, IER, 0)
    put(uart, LCR, 0x03)
    put(uart, FCR, 1 | FIFOS)
    put(uart, IER, 1)
    character = 10 * 10**9 // 115200
    uart.input(b"ab")
    uart.clock.advance_to(3 * character)
    uart.input(b"c")
    uart.clock.advance_to(7 * character - 10)
    assert not uart.wire.level
    uart.clock.advance_to(7 * character + 10)
    assert get(uart, IIR) == InterruptId.CHARACTER_TIMEOUT | FIFOS
    assert get(uart, DATA) == ord("a")
    assert not uart.wire.level
    uart.clock.advance_to(12 * character)
    assert uart.wire.level
    assert read_all(uart) == b"bc"
    uart.clock.advance_to(30 * character)
    assert not uart.wire.level


def test_more_is_asked_for_when_all_was_read(uart):
    waiting = bytearray(range(100))

    def feed():
        del waiting[: uart.input(bytes(waiting))]

    uart.on_room = feed
    put(uart, FCR, 1)
    feed()
    assert len(waiting) == 100 - FIFO_LENGTH
    assert read_all(uart) == bytes(range(100))
    uart.on_room = lambda: pytest.fail("nothing was refused")
    uart.input(b"a")
    assert read_all(uart) == b"a"


def test_the_transmitter_interrupts_when_it_is_enabled_and_after_each_character(uart):
    put(uart, IER, 2)
    assert uart.wire.level
    assert get(uart, IIR) == InterruptId.TRANSMITTER_EMPTY
    assert not uart.wire.level
    edges = []
    uart.wire.connect(edges.append)
    put(uart, DATA, ord("x"))
    assert edges == [True]
    put(uart, DATA, ord("y"))
    assert edges == [True, False, True]
    put(uart, IER, 0)
    assert edges == [True, False, True, False]


def test_priorities_of_interrupts(uart):
    put(uart, IER, 0xF)
    put(uart, FCR, 1)
    put(uart, MCR, 0x10)
    put(uart, MCR, 0)
    uart.input(b"x")
    uart.receive_break()
    get(uart, DATA)
    order = []
    for clear in (LSR, DATA, None, MSR):
        order.append(InterruptId(get(uart, IIR) & 0xF))
        if clear is not None:
            get(uart, clear)
    assert order == [
        InterruptId.LINE_STATUS,
        InterruptId.RECEIVED_DATA,
        InterruptId.TRANSMITTER_EMPTY,
        InterruptId.MODEM_STATUS,
    ]
    assert get(uart, IIR) == InterruptId.NONE | FIFOS


def test_a_break_is_an_error_of_its_character(uart):
    put(uart, FCR, 1)
    put(uart, IER, 4)
    uart.input(b"a")
    assert uart.receive_break()
    assert get(uart, LSR) == 0x60 | 0x80 | 1
    assert not uart.wire.level
    assert get(uart, DATA) == ord("a")
    assert uart.wire.level
    assert get(uart, LSR) == 0x60 | 0x80 | 0x10 | 1
    assert get(uart, LSR) == 0x60 | 1
    assert get(uart, DATA) == 0


def test_loopback_returns_characters_and_loses_too_many(uart):
    put(uart, FCR, 1)
    put(uart, MCR, 0x10)
    for byte in range(FIFO_LENGTH + 1):
        put(uart, DATA, byte)
    assert get(uart, LSR) == 0x63
    assert get(uart, LSR) == 0x61
    assert uart.input(b"x") == 0
    assert read_all(uart) == bytes(range(FIFO_LENGTH))
    assert not uart.printed


def test_without_fifos_a_new_character_replaces_an_old_one(uart):
    put(uart, MCR, 0x10)
    put(uart, DATA, 1)
    put(uart, DATA, 2)
    assert get(uart, LSR) & 2
    assert get(uart, DATA) == 2


def test_loopback_returns_the_modem_s_lines(uart):
    for control, lines in ((0x1A, 0x90), (0x15, 0x60), (0x1F, 0xF0)):
        put(uart, MCR, control)
        assert get(uart, MSR) & 0xF0 == lines
    put(uart, MCR, 0x1F & ~0x4)
    assert get(uart, MSR) == 0xB0 | 0x4
    assert get(uart, MSR) == 0xB0


def test_resetting_fifos(uart):
    put(uart, FCR, 1)
    uart.input(b"abc")
    put(uart, FCR, 3)
    assert get(uart, LSR) == 0x60
    uart.input(b"abc")
    put(uart, FCR, 0)
    assert get(uart, LSR) == 0x60
    assert get(uart, IIR) == InterruptId.NONE


def test_a_wide_access_is_one_of_several_registers(uart):
    uart.write(SCR, 4, 0x1111_1177)
    assert uart.read(LSR, 4) == 0x0077_B060
    assert uart.read(8, 8) == 0
    uart.write(8, 8, 2**64 - 1)
    uart.write(200, 1, 1)


def test_reset_keeps_what_was_printed(uart):
    put(uart, DATA, ord("x"))
    put(uart, IER, 0xF)
    put(uart, SCR, 1)
    uart.reset()
    assert uart.printed == [b"x"]
    assert [get(uart, register) for register in Register] == [0, 0, 1, 0, 0, 0x60, 0xB0, 0]
