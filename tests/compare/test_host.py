"""Facts about the host."""

import os

import pytest

from anyvirt.compare.host import cpu_model, host_facts


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz\n", "Intel Xeon Gold 6130"),
        ("model name : AMD EPYC 7763 64-Core Processor\nmodel name : other\n", "AMD EPYC 7763"),
        ("hart\t: 0\nisa\t: rv64imafdc\nuarch\t: sifive,u74-mc\n", "sifive,u74-mc"),
        ("nothing of the kind\n", os.uname().machine),
    ],
)
def test_cpu_models_in_general_terms(text, model):
    assert cpu_model(text) == model


def test_the_facts_are_this_hosts():
    facts = host_facts()
    assert facts.cpus == len(os.sched_getaffinity(0))
    with open("/proc/meminfo") as file:
        assert facts.memory == pytest.approx(int(file.readline().split()[1]) * 1024, rel=0.01)
    assert os.uname().release.startswith(facts.kernel)
    assert f"{facts.cpus} CPUs" in str(facts)
