"""Decoding and mnemonics of MIPS, SPARC, PowerPC and A64 against capstone: random words of every form."""

import random
import re

import capstone
import pytest

from anyvirt.jit.ahead import instruction_set

SETTINGS = {
    "mips": (capstone.CS_ARCH_MIPS, capstone.CS_MODE_MIPS32 | capstone.CS_MODE_BIG_ENDIAN),
    "mipsel": (capstone.CS_ARCH_MIPS, capstone.CS_MODE_MIPS32 | capstone.CS_MODE_LITTLE_ENDIAN),
    "sparc": (capstone.CS_ARCH_SPARC, capstone.CS_MODE_BIG_ENDIAN),
    "ppc": (capstone.CS_ARCH_PPC, capstone.CS_MODE_32 | capstone.CS_MODE_BIG_ENDIAN),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN),
}
EXAMPLES_PER_PATTERN = 60
RANDOM_WORDS = 30_000
_MIPS = {
    "jalr": "jr",
    "addu": "move",
    "subu": "negu",
    "nor": "not",
    "bgezal": "bal",
    "beq": "beqz|b",
    "bne": "bnez",
    "sll": "nop",
    "or": "move",
    "addiu": "li",
}
# For our mnemonic what else capstone calls the same instruction: an expression.
ALIASES = {
    "mips": _MIPS,
    "mipsel": _MIPS,
    "sparc": {
        "jmpl": "jmp|call|ret|retl",
        "subcc": "cmp",
        "or": "mov|clr",
        "orcc": "tst",
        "sethi": "nop",
        "add": "inc",
        "sub": "dec|neg",
        "addcc": "inccc",
        "xnor": "not",
        "andcc": "btst",
        "st": "clr",
        "stb": "clrb",
        "sth": "clrh",
        "wr": "mov|wr",
        "rd": "mov|rd",
        "xorcc": "btog",
    },
    "ppc": {
        "blr": "bd?n?zlr.*|blr.*",
        "bclr": "b.*lr[-+]?",
        "bclrl": "b.*lrl[-+]?",
        "bcctr": "b.*ctr[-+]?",
        "bcctrl": "b.*ctrl[-+]?",
        "crnor": "crnot",
        "creqv": "crset",
        "crxor": "crclr",
        "cror": "crmove",
        "tw": "tw.*|trap",
        "twi": "tw.*",
        "or": "mr",
        "or.": "mr.",
        "nor": "not",
        "nor.": "not.",
        "bc": "b.*",
        "bcl": "b.*",
        "bca": "b.*",
        "bcla": "b.*",
        "rlwinm": "s[lr]wi|rotlwi|clrlwi",
        "addis": "lis",
        "addi": "li",
        "rlwinm.": "s[lr]wi.|rotlwi.|clrlwi.",
        "rlwnm": "rotlw",
        "rlwnm.": "rotlw.",
        "ori": "nop",
        "xori": "xnop",
        "rlwimi": "insrwi|inslwi",
        "sync": "hwsync|msync",
        "mtcrf": "mtcr|mtocrf",
        "mfcr": "mfocrf",
    },
    "aarch64": {
        "dsb": "pssbb|dfb|ssbb",
        "sub": "neg",
        "adds": "cmn",
        "subs": "cmp|negs",
        "sbc": "ngc",
        "sbcs": "ngcs",
        "orr": "mov",
        "ands": "tst",
        "b.cs": "b.hs",
        "b.cc": "b.lo",
        "csinc": "cinc|cset",
        "csinv": "cinv|csetm",
        "csneg": "cneg",
        "sbfm": "sbfx|sbfiz|asr|sxt[bhw]",
        "bfm": "bfxil|bfi|bfc",
        "extr": "ror",
        "ubfm": "ubfx|ubfiz|ls[lr]|uxt[bh]",
        "madd": "mul",
        "msub": "mneg",
        "smaddl": "smull",
        "umaddl": "umull",
        "smsubl": "smnegl",
        "umsubl": "umnegl",
        "movn": "mov",
        "movz": "mov",
        "orn": "mvn",
        "add": "mov",
    },
}
# What capstone 5 refuses though it exists: expressions for our mnemonics, and why.
UNKNOWN_TO_CAPSTONE = {
    "mips": {},
    "mipsel": {},
    "sparc": {
        "mulscc|ldd|std|ldstub|flush|stbar": "left out of its SPARC V9",
        "t[a-z]+": "V9 has a field for condition codes there",
        "wr|rd": "V9 has other state registers",
    },
    "ppc": {r"\w+o\.?": "forms that record overflow", r"mf\w+|mt\w+|dcb\w+|icbi": "of other implementations"},
    "aarch64": {
        "ldp|ldnp|ldpsw": "both targets the same: unpredictable",
        "ldr.*|str.*|stp": "the base is written back over a transferred register: unpredictable",
        "stl?xr": "the status in a register that is used otherwise: unpredictable",
    },
}
# Words that capstone shows under a mnemonic that is ours, and that are reserved.
ONLY_THEIRS = {
    "mips": {"sync": "reserved fields that are not 0"},
    "mipsel": {"sync": "reserved fields that are not 0"},
    "ppc": {
        "sc": "reserved bits that are not 0",
        "(stwu|sthu|stbu|lwzu|lbzu|lhzu|lhau)x?": "the base of an update form is register 0",
        "dcb.*|sync|mf.*|mt.*": "fields of later versions",
        "bcctrl?|b.*": "counting down the register that it jumps to",
    },
}


@pytest.fixture(params=SETTINGS)
def setting(request):
    return instruction_set(request.param), capstone.Cs(*SETTINGS[request.param])


def theirs(engine, word, order):
    for _, _, mnemonic, _ in engine.disasm_lite(word.to_bytes(4, order), 0x10000):
        return mnemonic
    return None


def agrees(isa, ours, mnemonic):
    if mnemonic is None:
        return any(re.fullmatch(expression, ours) for expression in UNKNOWN_TO_CAPSTONE[isa.name])
    return mnemonic == ours or re.fullmatch(ALIASES[isa.name].get(ours, "-"), mnemonic) is not None


def test_what_we_decode_is_known(setting):
    isa, engine = setting
    generator = random.Random(1)
    for pattern in isa.patterns:
        used = sum((1 << p.width) - 1 << p.source for operand in pattern.operands for p in operand.parts)
        for _ in range(EXAMPLES_PER_PATTERN):
            word = pattern.match | generator.getrandbits(32) & used & ~pattern.mask
            found = isa.find(word, 4)
            if found is None:
                continue
            mnemonic = theirs(engine, word, isa.byte_order)
            assert agrees(isa, found.mnemonic, mnemonic), (hex(word), isa.disassemble(word, 4), mnemonic)


@pytest.mark.parametrize("name", ONLY_THEIRS)
def test_what_we_describe_is_complete(name):
    isa, engine = instruction_set(name), capstone.Cs(*SETTINGS[name])
    generator = random.Random(2)
    known = {pattern.mnemonic for pattern in isa.patterns}
    for _ in range(RANDOM_WORDS):
        word = generator.getrandbits(32)
        mnemonic = theirs(engine, word, isa.byte_order)
        if mnemonic in known and isa.find(word, 4) is None:
            reserved = any(re.fullmatch(expression, mnemonic) for expression in ONLY_THEIRS[name])
            assert reserved, (hex(word), mnemonic)
