"""Shells of Debian, linked with three C libraries, against their native builds: bash, zsh, mksh."""

import re

import pytest

from .conftest import debian_package, run

POSIX = r"""
x=$(echo a b c | tr a-z A-Z); echo "$x" ${#x} ${x%% *}
for i in 1 2 3; do echo $i; done | while read n; do echo $((n * n)); done
f() { [ $1 -gt 1 ] && f $(($1 - 1)); echo $1; }; f 5
trap 'echo interrupted' INT; kill -INT $$
(exit 7); echo $?; sh -c 'kill -9 $$'; echo $?; nothing-of-that-name; echo $?
sleep 0.2 & wait $!; echo waited $?
cat <<END
here $((6 * 7)) $(uname -s)
END
umask 027; umask; ulimit -n; ulimit -s 2048; ulimit -s
(cd /; pwd; exec echo replaced)
"""
BASH = r"""
declare -A map=([one]=1 [two]=2); for key in "${!map[@]}"; do echo $key=${map[$key]}; done | sort
read line < <(echo substituted); echo $line
coproc cat; echo through >&${COPROC[1]}; read line <&${COPROC[0]}; echo $line
eval "exec ${COPROC[1]}>&-"; wait
[[ 2024-05-06 =~ ^([0-9]+)-([0-9]+) ]] && echo ${BASH_REMATCH[2]}
printf '%(%Y-%m-%d)T %q %5.2f\n' 0 'a b' 3.14159; echo $((2 ** 62)) {a..e} ${BASH_VERSINFO[0]}
mapfile -t lines < <(seq 5); echo ${#lines[@]} ${lines[-1]}; exec 5<>/dev/tcp/127.0.0.1/1 || echo refused
(trap 'echo leaving' EXIT; exit 3); echo $?; set -o pipefail; false | true; echo $?
compgen -A signal | sed -n 1,3p
"""
ZSH = r"""
a=(3 1 2); print ${(o)a} ${#a}; repeat 3 print -n x; print; print $(( 1.0 / 3 )) $(( 2 ** 0.5 ))
typeset -A map; map=(k v); print ${map[k]}; print -l **/*(N) | head -n 2
(sleep 0.1; print sub) & wait; print $?
"""
SHELLS = {
    "bash": ("bash-static", "usr/bin/bash-static", (), POSIX + BASH),
    "zsh": ("zsh-static", "usr/bin/zsh-static", ("-f",), ZSH),
    "mksh with musl": ("mksh", "usr/lib/{architecture}-linux-musl/bin/mksh", (), POSIX),
    "mksh with klibc": ("mksh", "usr/lib/klibc/bin/mksh", (), POSIX),
}


@pytest.mark.parametrize(("package", "path", "options", "script"), SHELLS.values(), ids=SHELLS.keys())
def test_shell_does_what_its_native_build_does(package, path, options, script, tmp_path, emulate):
    native = debian_package(package) / path.format(architecture="x86_64")
    foreign = debian_package(package, "riscv64") / path.format(architecture="riscv64")
    command = (*options, "-c", script)
    expected = run((native, *command), directory=tmp_path)
    actual = emulate(foreign, *command, directory=tmp_path)
    assert expected.output.count("\n") > 5
    assert actual.output == expected.output
    assert actual.status == expected.status
    assert _nameless(actual.errors, foreign) == _nameless(expected.errors, native)


def _nameless(text, program):
    """Messages without what differs by nature: the program's path, and the numbers of killed processes."""
    return re.sub(r"\d+ Killed", "Killed", text.replace(str(program), ""))
