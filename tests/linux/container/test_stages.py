"""Reports of failures: what the first process sends is text and nothing more, whatever it contains."""

from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux.container import stages
from anyvirt.linux.container.stages import Fault, Stage, StartError


@given(st.sampled_from(Fault), st.sampled_from([None, *Stage]), st.text(min_size=1, max_size=500))
def test_a_report_comes_back(fault, stage, text):
    error = StartError(fault, text.replace("\0", ""), stage)
    back = stages.decode(stages.encode(error))
    assert (back.fault, back.stage) == (fault, stage)
    if str(error):
        assert str(back) == str(error)


@given(st.binary(max_size=5000))
def test_no_report_is_too_odd(report):
    assert str(stages.decode(report))


def test_a_failed_system_call_names_the_stage_and_the_subject():
    stages.enter(Stage.MOUNTS)
    error = stages.describe(OSError(13, "Permission denied", "/data"))
    assert str(error) == "cannot mount what the guest shares with the host: /data: Permission denied"
    assert error.stage is Stage.MOUNTS
