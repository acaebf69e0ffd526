"""The monitor's commands, on a program that is run by counted instructions: each shows what is the case."""

import re

import pytest

import anyvirt
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.machines.debugging.commands.table import Section, commands, find_command
from anyvirt.machines.debugging.monitor import Monitor

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def monitor(program):
    """A function that makes one: `monitor(cpus=2)`."""

    def make(name="debugged", **options):
        path = program(name)
        machine = anyvirt.Machine(kernel=path, memory="64M", **{"tier": "interpreter", "seed": 1} | options)
        made = Monitor(machine, counted=True)
        made.symbols.load(path)
        made.shown = []
        made.show = made.shown.append
        return made

    return make


def values(text):
    return [int(word, 16) for word in re.findall(r"0x[0-9a-f]+", text)]


def test_breakpoints_with_conditions_stop_where_they_hold(monitor):
    m = monitor()
    assert "breakpoint 1 at" in m.execute("break work if $a0 == 3")
    shown = m.execute("continue")
    assert shown.startswith("breakpoint 1\nhart 0 S 0x") and "<work>" in shown
    assert m.value("$a0") == 3
    assert m.value("u64(counter)") == 4
    assert "hit once" in m.execute("points")
    m.execute("condition 1 $a0 % 2 == 0")
    m.execute("c")
    assert m.value("a0") == 4
    m.execute("ignore 1 2")
    m.execute("c")
    assert m.value("a0") == 10
    m.execute("condition 1")
    m.execute("c 3")
    assert m.value("a0") == 13
    m.execute("disable 1")
    m.execute("tbreak twice if $a0 > 20")
    m.execute("c")
    assert m.value("a0") == 21
    assert "2: " not in m.execute("points")
    m.execute("enable 1")
    m.execute("c")
    assert m.value("a0") == 22
    m.execute("delete 1")
    assert m.execute("points") == "there are no breakpoints and watchpoints"


def test_a_condition_that_cannot_be_evaluated_stops_and_says_so(monitor):
    m = monitor()
    m.execute("break work if *0x7000000000")
    assert "breakpoint 1" in m.execute("c")
    assert "the condition of breakpoint 1" in m.shown[0]


def test_steps_go_over_calls_or_into_them(monitor):
    m = monitor()
    m.execute("until work")
    start = m.hart.pc
    m.execute("step 3")
    assert m.hart.pc > start
    while not m.execute("x/i $pc").partition("  ")[2].strip().startswith(("jal ", "c.jal")):
        m.execute("step")
    call = m.hart.pc
    m.execute("step")
    assert m.symbols.at(m.hart.pc) == "twice"
    assert "<work+" in m.execute("finish")
    assert call < m.hart.pc <= call + 4
    m.execute("until work")
    m.execute(f"until {call}")
    m.execute("next")
    assert call < m.hart.pc <= call + 4
    assert m.value("a0") == 4


def test_a_step_leads_into_an_exception_and_passes_breakpoints_where_it_stands(monitor):
    m = monitor()
    m.execute("until trapped")
    m.execute("set pc = $sepc")
    m.execute("set priv = 1")
    m.execute("break $sepc")
    assert "c.addi16sp" in m.execute("step")
    assert m.symbols.at(m.hart.pc) == "trapped"
    shown = m.execute("csr scause sepc sstatus")
    assert "breakpoint" in shown and "SPP=1(supervisor)" in shown


@pytest.mark.parametrize("tier", ["interpreter", "stencil"])
def test_watchpoints_say_what_changed(monitor, tier):
    m = monitor(tier=tier)
    m.execute("watch counter, 8")
    shown = m.execute("continue")
    assert "watchpoint 1: write at" in shown and "<counter>: 0x0 -> 0x2" in shown
    assert "0x2 -> 0x4" in m.execute("continue")
    m.execute("condition 1 u64(counter) == 20")
    assert "-> 0x14" in m.execute("continue")
    m.execute("delete")
    m.execute("watch 0xffffffc000003000, 1")
    shown = m.execute("continue")
    assert "write at 0xffffffc000003000" in shown
    m.execute("delete")
    m.execute("rwatch ready")
    m.execute("awatch counter if u64(counter) > 30")
    assert "access watchpoint" in m.execute("continue")
    assert m.value("u64(counter)") == 32


def test_harts_are_chosen_and_step_together(monitor):
    m = monitor(cpus=2)
    m.execute("until work")
    assert m.execute("harts").count("supervisor mode, running") == 2
    before = m.value("u64(counted_by_second)")
    m.execute("step 50")
    assert m.value("u64(counted_by_second)") > before
    assert m.execute("hart 1").startswith("hart 1 S")
    assert m.value("mhartid") == 1
    pc = m.hart.pc
    m.execute("step")
    assert m.hart.pc != pc and m.hart.number == 1
    with pytest.raises(UsageError, match="2 harts"):
        m.execute("hart 2")
    m.execute("tbreak work")
    m.execute("c")
    assert m.number == 0


def test_registers_are_shown_and_set(monitor):
    m = monitor()
    m.execute("until work")
    shown = m.execute("registers")
    assert f"a0 {m.hart.x[10]:016x}" in shown and f"pc {m.hart.pc:016x}" in shown
    assert "MODE=8(Sv39)" in m.execute("registers satp")
    assert m.execute("set a1 = $a0 * 4 + 2").split()[1].endswith("6")
    assert m.hart.x[11] == 6
    m.execute("set sscratch = 0x77")
    assert m.hart.csr["sscratch"] == 0x77
    m.execute("set ft0 = 0x3ff8000000000000")
    assert "1.5" in m.execute("floats")
    assert "mstatus" in m.execute("csr") and "misa" in m.execute("csr all")
    assert "MXL=2(64)" in m.execute("csr misa")
    assert m.execute("print main").endswith("<main>")
    assert m.execute("print -1") == "0xffffffffffffffff = -1"
    for line, complaint in (
        ("registers q7", "no register q7"),
        ("set q7 = 1", "no register q7"),
        ("set a0", "REGISTER = EXPRESSION"),
        ("set a0 == 1", "REGISTER = EXPRESSION"),
        ("set time = 1", "cannot be set"),
    ):
        with pytest.raises(UsageError, match=complaint):
            m.execute(line)


def test_memory_is_dumped_disassembled_written_and_kept(monitor, tmp_path):
    m = monitor()
    m.execute("until work")
    virtual = 0xFFFF_FFC0_0000_3000
    assert m.execute(f"x/s {virtual}") == f'{virtual:#x}: "what is in the page"'
    assert m.execute("x/s page").endswith('"what is in the page"')
    assert m.execute(f"x/4c {virtual}").endswith("'w' 'h' 'a' 't'")
    assert m.execute(f"x/2xh {virtual}").endswith("0x6877 0x7461")
    assert m.execute(f"x/db {virtual}").endswith(str(ord("w")))
    m.execute(f"write {virtual}, 1, 0x57")
    assert m.execute("xp/s page").endswith('"What is in the page"')
    with pytest.raises(AnyvirtError):
        m.execute(f"xp/s {virtual}")
    assert m.execute("xp/bx 0x10000005").endswith("0x60")
    lines = m.execute("disassemble").splitlines()
    assert len(lines) == 10 and lines[0].startswith("=> ") and "<work>" in lines[0]
    assert "addi" in lines[0]
    assert len(m.execute("x/3i main").splitlines()) == 3
    file = tmp_path / "dump"
    m.execute(f"dump {file} {virtual}, 4")
    assert file.read_bytes() == b"What"
    file.write_bytes(b"Then")
    m.execute(f"load {file} page")
    assert m.execute(f"x/s {virtual}").endswith('"Then is in the page"')
    m.execute("writep page, 4, 0x74616857")
    assert m.execute("x/s page").endswith('"What is in the page"')
    for line, complaint in (
        ("x/q 0", "'q' is no format"),
        ("write 0, 3, 0", "1, 2, 4 or 8"),
        ("write 0", "ADDRESS, BYTES"),
        ("x/99999999x 0", "too many"),
        ("dump x 0", "FILE ADDRESS"),
        ("load /nothing 0", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=complaint):
            m.execute(line)


def test_code_that_has_run_is_stopped_at_where_it_is_mapped(monitor):
    """Its decoded form is that of a physical page; a breakpoint knows the virtual address."""
    m = monitor(tier="stencil")
    m.execute("tbreak work if $a0 == 50")
    m.execute("c")
    assert m.value("a0") == 50
    m.execute("break twice")
    m.execute("c")
    assert m.value("a0") == 50 and m.symbols.at(m.hart.pc) == "twice"


def test_page_tables_are_explained(monitor):
    m = monitor()
    assert "addresses are physical" in m.execute("walk 0x80200000")
    m.execute("until work")
    shown = m.execute("walk 0xffffffc000003000")
    assert "Sv39" in shown
    assert re.search(r"level 2: entry 256 at .* -------V: the next table", shown)
    assert re.search(r"level 0: entry 3 at .* DA---WRV: a page of 4 KiB at 0x[0-9a-f]+, readable", shown)
    page = m.symbols.address("page")
    assert f"loads: {page:#x}" in shown and "instructions: a page fault" in shown
    assert "not valid, a page fault" in m.execute("walk 0xffffffc000004000")
    assert "upper 25 bits" in m.execute("walk 0x4000000000000000")
    assert "a page of 1 GiB" in m.execute("walk main")
    lines = m.execute("mappings").splitlines()
    assert len(lines) == 4
    assert re.fullmatch(rf"0xffffffc000003000-0xffffffc000003fff -> {page:#014x} WRV 4 KiB", lines[3])
    m.execute("set satp = 0")
    assert "addresses are physical" in m.execute("mappings")


def test_calls_are_followed_by_frame_pointers(monitor):
    m = monitor()
    m.execute("until twice")
    for _ in range(6):
        m.execute("step")
        shown = m.execute("backtrace").splitlines()
        names = [line.split("<")[1].partition("+")[0].rstrip(">") for line in shown[:3]]
        if names == ["twice", "work", "main"]:
            break
    assert names == ["twice", "work", "main"]
    m.execute("until work")
    assert [
        line.split("<")[1].partition("+")[0].rstrip(">") for line in m.execute("bt").splitlines()[:2]
    ] == [
        "work",
        "main",
    ]


def test_devices_are_shown_by_their_registers_and_are_not_disturbed(monitor):
    m = monitor()
    assert "uart" in m.execute("device")
    m.machine.board.uart.input(b"x")
    shown = m.execute("device uart")
    assert "LCR" in shown and "line_control=0" in shown and "received" in shown
    assert m.execute("device uart") == shown
    m.execute("writep 0xc000028, 4, 7")
    shown = m.execute("device plic")
    assert re.search(r"PRIORITY\s+priorities=\{10: 7\}", shown)
    assert "mtimecmp" in m.execute("device clint")
    assert re.search(r"0x000080000000-0x000083ffffff ram", m.execute("map"))
    assert "machine software interrupt: enabled" in m.execute("interrupts") or "mie" in m.execute("irq")
    with pytest.raises(UsageError, match="there are plic, clint"):
        m.execute("device nothing")


def test_the_console_is_typed_to_and_waited_for(monitor):
    m = monitor("echo")
    assert "'ready'" in m.execute("expect ready 60")
    m.execute("send hello there")
    m.execute('expect "HELLO T(H|h)ERE" 60')
    m.execute('send ".\\n"')
    assert "turned the machine off" in m.execute("continue")
    assert "HELLO THERE" in m.execute("console 3")
    m.execute("console off")
    assert not m.is_console_shown
    with pytest.raises(UsageError, match="was not printed"):
        m.execute("expect never 5")
    with pytest.raises(UsageError, match="no regular expression"):
        m.execute("expect (")
    m.execute("reset")
    assert m.execute("expect ready 60")


def test_traces_go_to_a_file(monitor, tmp_path):
    m = monitor(cpus=2)
    m.execute("until work")
    file = tmp_path / "trace.txt"
    m.execute(f"trace {file}")
    with pytest.raises(UsageError, match="traced already"):
        m.execute("trace other")
    m.execute("step 5")
    assert m.execute("trace off") == "10 lines were written"
    lines = file.read_text().splitlines()
    assert [line[0] for line in lines[:2]] == ["0", "1"]
    assert "sp=" in lines[0]
    with pytest.raises(UsageError, match="nothing is traced"):
        m.execute("trace off")
    m.execute(f"trace {file} 3")
    m.execute("step 10")
    assert m.execute("trace off") == "6 lines were written"


def test_scripts_symbols_and_help(monitor, tmp_path):
    m = monitor()
    script = tmp_path / "script"
    script.write_text("# nothing\n\nbreak work   # there\ncontinue\nprint $a0\nquit\nprint 5\n")
    m.execute(f"source {script}")
    assert m.is_done and m.shown[-1] == "0x1 = 1"
    listing = tmp_path / "System.map"
    listing.write_text("ffffffff80001000 T far_away\n")
    assert m.execute(f"symbols {listing}") == f"1 symbols are from {listing}"
    assert m.execute("symbol 0xffffffff80001010") == "0xffffffff80001010 <far_away+0x10>"
    shown = m.execute("help")
    for section in Section:
        assert f"{section}:" in shown
    for name, found in commands().items():
        assert found.summary.endswith((".", "?")) or found.summary, name
        assert name in m.execute(f"help {name}")
    assert "satp" in m.execute("info csr") and "zero" in m.execute("info registers")
    with pytest.raises(UsageError, match="no command nonsense"):
        m.execute("nonsense")
    with pytest.raises(UsageError, match="beginning of several commands"):
        m.execute("re")
    assert find_command("disas").names[0] == "disassemble"
    assert m.execute("echo a b") == "a b"


def test_nothing_can_stand_between_the_user_and_an_end(monitor):
    m = monitor("sleep")
    assert "all harts wait" in m.execute("continue")
    m = monitor("print")
    assert "asks for a reset" in m.execute("continue")
    assert "asks for a reset" in m.execute("step")
    m.execute("break main")
    m.execute("reset")
    assert "breakpoint 1" in m.execute("continue")


def test_going_back_stops_where_points_were_reached(monitor):
    m = monitor()
    m.machine.keep_history(every=5_000)
    m.execute("break work if $a0 == 40")
    m.execute("continue")
    m.execute("condition 1 $a0 % 2 == 0")
    m.execute("continue 4")
    assert m.value("$a0") == 48
    hits = m.points[1].hits
    shown = m.execute("rc")
    assert shown.startswith("breakpoint 1\nhart 0 S 0x") and m.value("$a0") == 46
    assert m.points[1].hits == hits
    place = m.hart.pc
    m.execute("step 3")
    assert f"S {m.hart.pc:#x}" not in m.execute("reverse-step 2")
    m.execute("rsi")
    assert m.hart.pc == place
    m.execute("disable 1")
    m.execute("watch counter if u64(counter) == 80")
    shown = m.execute("reverse-continue")
    assert "watchpoint 2: write at" in shown and "-> 0x50" in shown and "<work" in shown
    assert m.value("u64(counter)") == 80
    m.execute("delete 2")
    m.execute("tbreak main")
    assert "breakpoint 3" in m.execute("rc")
    assert m.execute("rc").startswith("the history begins here\nhart 0 M 0x1000:")
    assert m.execute("rs").startswith("the history begins here")
    m.execute("enable 1")
    m.execute("c")
    assert m.value("$a0") == 2


def test_going_back_can_be_given_up_and_needs_a_history(monitor):
    m = monitor()
    with pytest.raises(UsageError, match="has no history"):
        m.execute("reverse-step")
    assert not m.interrupt()
    m.machine.keep_history(every=5_000)
    m.execute("until work")
    place = m.hart.pc
    m.execute("break main if 0")
    m.points._counts = lambda *_: m.interrupt() and False
    assert m.execute("rc").startswith("stopped\n") and m.hart.pc == place
    m.execute("reset")
    assert m.execute("rs").startswith("the history begins here")
    with pytest.raises(UsageError, match="counted instructions"):
        m.execute("run 1")
