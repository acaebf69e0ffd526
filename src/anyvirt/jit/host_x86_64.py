"""What is peculiar to an x86-64 Linux host: entering and leaving compiled code, signals, MXCSR.

The rest of the compiler knows none of it. The functions in typed Python are compiled into one blob of their
own and run as signal handlers of the host; they touch only state blocks, the blob's data and the saved
registers (struct ucontext of arch/x86/include/uapi/asm/ucontext.h and sigcontext.h).
"""

from __future__ import annotations

import builtins
from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.jit.exits import Frame, data, fault_landing, write_back
from anyvirt.jit.frontend import Module
from anyvirt.jit.host_layout import (
    CODE_RANGES,
    MXCSR_DEFAULT,
    NOT_STARTED,
    RING_ENTRIES,
    RING_ENTRY,
    ROUNDING_CONTROL,
    SIGNAL_INFO_WORDS,
    Data,
    has_segment,
)
from anyvirt.jit.layout import (
    BRANCH_REACH,
    HANDLER_FIELD,
    NO_CODE,
    PAGE_SIZE,
    STATE_SIZE,
    Access,
    Request,
    Slot,
    StopReason,
)
from anyvirt.jit.machine_access import flush_page, flush_tlbs, forget_code, full_fence, stop_writing
from anyvirt.jit.target import Target
from anyvirt.typed import load8, load64, range, store8, store64, u8, u64

if TYPE_CHECKING:
    from anyvirt.jit.frontend import FunctionCompiler
    from anyvirt.jit.ir import Value
    from anyvirt.jit.target import Argument

_STACK_REACH = 1 << 16


class Saved(IntEnum):
    """Offsets of registers in the third argument of a signal handler."""

    R12 = 72
    R13 = 80
    R15 = 96
    RDI = 104
    RSP = 160
    RIP = 168
    ERR = 192


_SIGBUS = 7
_SIGACTION, _KILL, _GETPID, _GETTID = 13, 62, 39, 186
_PAGE_FAULT_WRITE = 2


def atomic_add(address: u64, value: u64) -> u64:
    """Add to memory atomically; the old content."""
    raise NotImplementedError(address, value)


def call(function: u64, a: u64, b: u64, c: u64) -> None:
    """Call a C function by address."""
    raise NotImplementedError(function, a, b, c)


def kernel(number: u64, a: u64, b: u64, c: u64, d: u64) -> u64:
    """A system call of the host."""
    raise NotImplementedError(number, a, b, c, d)


def find_state(stack: u64) -> u64:
    """The state block of the guest that runs on this stack, the innermost one; 0 if none does."""
    state = load64(data() + Data.STATES)
    end = load64(data() + Data.STATES_END)
    found, nearest = u64(0), u64(_STACK_REACH)
    while state < end:
        top = load64(state + Slot.STACK)
        if top != 0 and top - stack < nearest:
            found, nearest = state, top - stack
        state += STATE_SIZE
    return found


def is_compiled(address: u64) -> bool:
    """Whether an instruction of the host is compiled guest code."""
    for index in range(u64(CODE_RANGES)):
        entry = data() + Data.RANGES + index * 16
        if address - load64(entry) < load64(entry + 8) - load64(entry):
            return True
    return False


def on_fault(signal: u64, info: u64, context: u64) -> None:
    """SIGSEGV and SIGBUS: the guest's become a stop, an empty record becomes a call of the decoder."""
    instruction = load64(context + Saved.RIP)
    state = find_state(load64(context + Saved.RSP))
    if state != 0 and instruction == 0:
        store64(context + Saved.RIP, load64(state + Slot.UNDECODED))
    elif state == 0 or not is_compiled(instruction) or not stop_guest(signal, info, context, state):
        pass_on(signal, info, context)


def stop_guest(signal: u64, info: u64, context: u64, state: u64) -> bool:
    """Make a fault of compiled code the end of its run; false if the address is none of the guest's."""
    address = load64(info + 16)
    guest = address - load64(state + Slot.MEMORY)
    records = load64(state + Slot.RECORDS)
    record = load64(state + Slot.FAULT_RECORD)
    count = load64(state + Slot.FAULT_COUNT)
    size = load64(state + Slot.MEMORY_SIZE)
    shift = load64(state + Slot.RECORD_SHIFT)
    guard = u64(BRANCH_REACH) << shift
    intent = load64(state + Slot.INTENT)
    store64(state + Slot.INTENT, u64(0))
    landing = fault_landing(load64(context + Saved.RIP))
    if landing != 0 or guest < size + _STACK_REACH:
        access = (load64(context + Saved.ERR) // _PAGE_FAULT_WRITE) & 1 if intent == 0 else intent - 1
        if access != Access.EXECUTE:
            count += 1
    elif address - (records - guard) < (size << shift) + 2 * guard:
        access = u64(NO_CODE)
        guest = (address - records) >> shift
        if address < records:
            guest = -((records - address) >> shift)
    else:
        return False
    store64(state + Slot.REASON, u64(StopReason.ACCESS_FAULT))
    store64(state + Slot.FAULT_ADDRESS, guest)
    store64(state + Slot.FAULT_ACCESS, access)
    store64(state + Slot.BUS_ERROR, u64(signal == _SIGBUS))
    if landing != 0:
        store64(context + Saved.RIP, landing)
        return True
    store64(context + Saved.R12, state)
    store64(context + Saved.R13, record)
    store64(context + Saved.R15, count)
    store64(context + Saved.RDI, records)
    store64(context + Saved.RIP, load64(state + Slot.LEAVE))
    return True


def pass_on(signal: u64, info: u64, context: u64) -> None:
    """Not ours: what was installed before gets it, or the process dies as it would have."""
    previous = (
        load64(data() + Data.PREVIOUS_BUS) if signal == _SIGBUS else load64(data() + Data.PREVIOUS_SEGV)
    )
    if previous > 1:
        call(previous, signal, info, context)
    else:
        kernel(u64(_SIGACTION), signal, data() + Data.ZEROS, u64(0), u64(8))
        kernel(u64(_KILL), kernel(u64(_GETPID), u64(0), u64(0), u64(0), u64(0)), signal, u64(0), u64(0))


def on_signal(signal: u64, info: u64, context: u64) -> None:
    """Any other signal: note it, and let the guest stop soon that this thread runs.

    Every guest stops whose state block does not say which thread runs it.
    """
    thread = kernel(u64(_GETTID), u64(0), u64(0), u64(0), u64(0))
    sequence = atomic_add(data() + Data.RING_HEAD, u64(1)) + 1
    entry = data() + Data.RING + sequence % RING_ENTRIES * RING_ENTRY
    if load64(entry) == 0:
        store64(entry + 8, signal)
        store64(entry + 16, thread)
        for word in range(u64(SIGNAL_INFO_WORDS)):
            store64(entry + 24 + word * 8, load64(info + word * 8))
        store64(entry, sequence)
    else:
        atomic_add(data() + Data.RING_LOST, u64(1))
    state = load64(data() + Data.STATES)
    while state < load64(data() + Data.STATES_END):
        owner = load64(state + Slot.THREAD)
        if owner == 0 or owner == thread:  # noqa: PLR1714 - typed Python has no `in`
            store8(state + Slot.PENDING + Request.STOP, u8(1))
        state += STATE_SIZE
    begin = load64(data() + Data.RESTART_BEGIN)
    if load64(context + Saved.RIP) - begin <= load64(data() + Data.RESTART_END) - begin:
        store64(context + Saved.RIP, load64(data() + Data.RESTART_TARGET))


def forget(records: u64, decoded: u64, start: u64, end: u64, shift: u64, size: u64) -> None:
    """Empty the handlers of all records, of `size` bytes, of [start, end) that may have been written.

    Operands stay: another thread may be in the middle of an instruction that has not changed.
    """
    place = start
    while place < end:
        stop = min((place // PAGE_SIZE + 1) * PAGE_SIZE, end)
        flag = decoded + place // PAGE_SIZE
        if load8(flag) != 0:
            if stop - place == PAGE_SIZE:
                store8(flag, u8(0))
            while place < stop:
                store64(records + (place << shift) + HANDLER_FIELD, u64(0))
                place += size >> shift
        place = stop


class HostTarget(Target):
    """Typed Python that runs in this process, outside of any guest."""

    def __init__(self) -> None:
        super().__init__()
        self.intrinsics |= {data: _data, atomic_add: _atomic_add, call: _call, kernel: _kernel}
        self.intrinsics[full_fence] = _full_fence


def _data(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    compiler.typed_arguments(arguments, [])
    return compiler.body.value("ptrtoint ptr @data to i64", u64)


def _atomic_add(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    address, value = compiler.typed_arguments(arguments, [u64, u64])
    pointer = compiler.body.emit(f"inttoptr i64 {address.text} to ptr")
    return compiler.body.value(f"atomicrmw add ptr {pointer}, i64 {value.text} seq_cst, align 8", u64)


def _call(compiler: FunctionCompiler, arguments: list[Argument]) -> None:
    function, *values = compiler.typed_arguments(arguments, [u64] * 4)
    pointer = compiler.body.emit(f"inttoptr i64 {function.text} to ptr")
    compiler.body.effect(f"call void {pointer}({', '.join(value.operand for value in values)})")


def _full_fence(compiler: FunctionCompiler, arguments: list[Argument]) -> None:
    compiler.typed_arguments(arguments, [])
    compiler.body.effect("fence seq_cst")


def _kernel(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    values = compiler.typed_arguments(arguments, [u64] * 5)
    constraints = "={ax},{ax},{di},{si},{dx},{r10},~{rcx},~{r11},~{memory}"
    operands = ", ".join(value.operand for value in values)
    return compiler.body.value(f'call i64 asm sideeffect "syscall", "{constraints}"({operands})', u64)


_FUNCTIONS = (
    write_back, on_fault, on_signal, forget, forget_code, flush_tlbs, flush_page, stop_writing,
)  # fmt: skip


def host_module() -> str:
    """LLVM IR of the blob that is there once in a process."""
    module = Module(HostTarget())
    module.define(f"@data = internal global [{Data.SIZE // 8} x i64] zeroinitializer, align 4096\n")
    for function in _FUNCTIONS:
        module.add(function, name=function.__name__, linkage="dso_local ", attributes="nounwind")
    enter = _SET_SEGMENT + _ENTER if has_segment() else _ENTER
    naked = {
        "enter": enter,
        "leave": _LEAVE,
        "translation_exit": _EXIT,
        "system_call": _SYSTEM_CALL,
        "spawn": _SPAWN,
        "signal_return": _SIGNAL_RETURN,
        "add_word": _ADD_WORD,
    }
    for name, lines in naked.items():
        module.define(_naked(name, lines))
    return module.text()


def _naked(name: str, lines: str) -> str:
    """A function that is nothing but the given assembly lines."""
    text = "\\0A".join(line.strip().replace("$", "$$") for line in lines.strip().splitlines())
    return (
        f"define dso_local void @{name}() naked nounwind {{\n"
        f'  call void asm sideeffect "{text}", "~{{memory}}"()\n  unreachable\n}}\n'
    )


# enter(state): the host's callee-saved registers and MXCSR go to the stack, the guest's come from the state.
_SET_SEGMENT = f"""
movq {Slot.MEMORY:d}(%rdi), %rax
wrgsbase %rax
"""
# The exchange is a barrier: who has emptied a record and does not see us running then, is seen by us.
_ENTER = f"""
pushq %rbp
pushq %rbx
pushq %r12
pushq %r13
pushq %r14
pushq %r15
subq $8, %rsp
stmxcsr (%rsp)
pushq $0
movq %rdi, %r12
movq {Slot.RECORD:d}(%r12), %r13
movq {Slot.MEMORY:d}(%r12), %r14
movq {Slot.COUNT:d}(%r12), %r15
movq {Slot.RECORDS:d}(%r12), %rdi
ldmxcsr {Slot.FLOAT_CONTROL:d}(%r12)
movq %rsp, %rax
xchgq %rax, {Slot.STACK:d}(%r12)
jmpq *(%r13)
"""
_LEAVE = f"""
movq {Slot.STACK:d}(%r12), %rsp
movq $0, {Slot.STACK:d}(%r12)
movq %r13, {Slot.RECORD:d}(%r12)
movq %r15, {Slot.COUNT:d}(%r12)
movq %rdi, {Slot.RECORDS:d}(%r12)
stmxcsr {Slot.FLOAT_CONTROL:d}(%r12)
addq $8, %rsp
ldmxcsr (%rsp)
addq $8, %rsp
popq %r15
popq %r14
popq %r13
popq %r12
popq %rbx
popq %rbp
retq
"""
# Called by an exit of a translation: registers go into a frame; `write_back` makes the guest's state of it.
_SAVE_VECTORS = "\n".join(
    f"movsd %xmm{number}, {Frame.VECTOR + 8 * number:d}(%rsp)" for number in builtins.range(16)
)
_EXIT = f"""
leaq -{int(Frame.RETURN)}(%rsp), %rsp
movq %rax, {Frame.GENERAL + 0:d}(%rsp)
movq %rdx, {Frame.GENERAL + 8:d}(%rsp)
movq %rcx, {Frame.GENERAL + 16:d}(%rsp)
movq %rbx, {Frame.GENERAL + 24:d}(%rsp)
movq %rsi, {Frame.GENERAL + 32:d}(%rsp)
movq %rdi, {Frame.GENERAL + 40:d}(%rsp)
movq %rbp, {Frame.GENERAL + 48:d}(%rsp)
leaq {Frame.RETURN + 8:d}(%rsp), %rax
movq %rax, {Frame.GENERAL + 56:d}(%rsp)
movq %r8, {Frame.GENERAL + 64:d}(%rsp)
movq %r9, {Frame.GENERAL + 72:d}(%rsp)
movq %r10, {Frame.GENERAL + 80:d}(%rsp)
movq %r11, {Frame.GENERAL + 88:d}(%rsp)
movq %r12, {Frame.GENERAL + 96:d}(%rsp)
movq %r13, {Frame.GENERAL + 104:d}(%rsp)
movq %r14, {Frame.GENERAL + 112:d}(%rsp)
movq %r15, {Frame.GENERAL + 120:d}(%rsp)
{_SAVE_VECTORS}
movq %rsp, %rdi
andq $-16, %rsp
call write_back
movq %rax, %r12
movq {Slot.RECORD:d}(%r12), %r13
movq {Slot.COUNT:d}(%r12), %r15
movq {Slot.RECORDS:d}(%r12), %rdi
movq {Slot.MEMORY:d}(%r12), %r14
movq {Slot.STACK:d}(%r12), %rsp
jmpq *{Slot.ONWARD:d}(%r12)
"""
# spawn(path, argv, envp, stack): start a program in a session of its own, without descriptors and without
# telling anybody when it ends. The child has a stack of its own in our memory until it has the program, so
# that no lock of another thread can be in its way (clone(2), CLONE_VM | CLONE_VFORK). Whatever clone(2) was
# told, the end of a child that has called execve(2) is signalled; so it is a grandchild that does. Its pid
# takes the place of the first word of envp.
_SPAWN = """
pushq %rbx
pushq %r12
pushq %r13
movq %rdi, %rbx
movq %rsi, %r12
movq %rdx, %r13
movq %rcx, %rsi
movl $0x4100, %edi
xorl %edx, %edx
xorl %r10d, %r10d
xorl %r8d, %r8d
movl $56, %eax
syscall
testq %rax, %rax
je 1f
js 2f
movq %rax, %rdi
xorl %esi, %esi
movl $0x40000000, %edx
xorl %r10d, %r10d
movl $61, %eax
syscall
movq (%r13), %rax
2: popq %r13
popq %r12
popq %rbx
retq
1: movl $112, %eax
syscall
xorl %edi, %edi
movl $0xffffffff, %esi
xorl %edx, %edx
movl $436, %eax
syscall
movl $0x4100, %edi
xorl %esi, %esi
xorl %edx, %edx
xorl %r10d, %r10d
xorl %r8d, %r8d
movl $56, %eax
syscall
testq %rax, %rax
je 3f
movq %rax, (%r13)
xorl %edi, %edi
movl $60, %eax
syscall
3: movq %rbx, %rdi
movq %r12, %rsi
movq %r13, %rdx
movl $59, %eax
syscall
movl $127, %edi
movl $60, %eax
syscall
"""
# system_call(state, number, six arguments): the host's, unless the state is asked to STOP; a signal handler
# that finds us between the check and the instruction moves us to the way out.
_SYSTEM_CALL = f"""
movq %rdi, %r11
movq %rsi, %rax
movq %rdx, %rdi
movq %rcx, %rsi
movq %r8, %rdx
movq %r9, %r10
movq 8(%rsp), %r8
movq 16(%rsp), %r9
.globl restart_begin
restart_begin:
cmpb $0, {Slot.PENDING + Request.STOP:d}(%r11)
jne restart_target
.globl restart_end
restart_end:
syscall
retq
.globl restart_target
restart_target:
movq ${NOT_STARTED}, %rax
retq
"""
# What a signal handler returns to: rt_sigreturn(2).
_SIGNAL_RETURN = """
movl $15, %eax
syscall
"""
# add_word(address, value): add to 32 bits atomically.
_ADD_WORD = """
lock addl %esi, (%rdi)
retq
"""

FLOAT_ENVIRONMENT = f"""
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal i8 @float.accrued(ptr %state) nounwind {{
  %place = getelementptr i8, ptr %state, i64 {int(Slot.SCRATCH)}
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %control = load i32, ptr %place
  ; IE DE ZE OE UE PE, lowest first, become NV DZ OF UF NX, highest first.
  %invalid = and i32 %control, 1
  %others = lshr i32 %control, 1
  %masked = and i32 %others, 30
  %joined = or i32 %invalid, %masked
  %byte = trunc i32 %joined to i8
  %turned = call i8 @llvm.bitreverse.i8(i8 %byte)
  %hard = lshr i8 %turned, 3
  %slot = getelementptr i8, ptr %state, i64 {int(Slot.FLOAT_FLAGS)}
  %soft = load i8, ptr %slot
  %all = or i8 %hard, %soft
  ret i8 %all
}}

define internal void @float.float_flags(ptr %state, i64 %flags) nounwind {{
  %place = getelementptr i8, ptr %state, i64 {int(Slot.SCRATCH)}
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %control = load i32, ptr %place
  %cleared = and i32 %control, -64
  store i32 %cleared, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}}

define internal void @float.float_rounding(ptr %state, i64 %mode) nounwind {{
  %place = getelementptr i8, ptr %state, i64 {int(Slot.SCRATCH)}
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %control = load i32, ptr %place
  %cleared = and i32 %control, -24577
  %index = and i64 %mode, 7
  %entry = getelementptr [8 x i32], ptr @float.rounding, i64 0, i64 %index
  %bits = load i32, ptr %entry
  %new = or i32 %cleared, %bits
  store i32 %new, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}}

@float.rounding = private constant [8 x i32] [{", ".join(f"i32 {bits << 13}" for bits in ROUNDING_CONTROL)}]
"""

CALL_OUTSIDE = f"""
@call.outside.control = private constant i32 {MXCSR_DEFAULT}

; A function outside of compiled code, called with the floating-point environment that it expects.
define internal i64 @call.outside(i64 %function, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e) noinline nounwind {{
  %control = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %control)
  call void @llvm.x86.sse.ldmxcsr(ptr @call.outside.control)
  %pointer = inttoptr i64 %function to ptr
  %result = call i64 %pointer(i64 %a, i64 %b, i64 %c, i64 %d, i64 %e)
  call void @llvm.x86.sse.ldmxcsr(ptr %control)
  ret i64 %result
}}
"""
