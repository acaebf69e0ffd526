"""Debian's static busybox for RISC-V 64: scripts and tools, against its native build on the same kernel.

Both find only busybox's own applets through PATH, so every command of a script is a program executed by the
emulator, not one of the host's.
"""

import os
import pty
import select
import subprocess
import threading
import time

import pytest

from .conftest import EMULATOR, run

SCRIPTS = {
    "pipes": "seq 1 1000 | grep 7 | sed 's/7/seven/g' | tail -n 3 | tr a-z A-Z",
    "loops": "i=0; while [ $i -lt 50 ]; do i=$((i + 1)); case $i in *3) continue;; 45) break;; esac; "
    "echo -n $i,; done; echo; for x in a b c; do echo $x; done | cat -n",
    "here-documents": "name=world\ncat <<END | tr o 0\nhello $name $(echo nested) $((6 * 7))\nEND\n"
    "cat <<'END'\n$name stays\nEND\n",
    "substitution": 'x=$(for i in 1 2 3; do echo "line $i"; done); echo "$x" | wc -l; echo ${x##*line}; '
    "y=abcdef; echo ${y#abc} ${y%def} ${#y} ${z:-default} ${y/cd/CD}; echo `expr 3 + 4`",
    "background jobs": "for i in 3 1 2; do (sleep 0.$i; echo done $i) & done; wait; echo all; "
    "sleep 10 & kill $!; wait $!; echo status $?",
    "traps": 'trap "echo caught USR1" USR1; kill -USR1 $$; trap "echo leaving" EXIT; '
    "(trap 'echo inner; exit 3' TERM; kill -TERM $(exec sh -c 'echo $PPID'); sleep 1); echo $?; exit 5",
    "exit statuses": "false; echo $?; (exit 9); echo $?; no-such-command; echo $?; echo x | false; echo $?; "
    "mkdir d; ./d; echo $?; touch n; ./n; echo $?; sh -c 'kill -9 $$'; echo $?; ! true; echo $?",
    "functions": "f() { local a=$1; [ $a -le 1 ] && { echo 1; return; }; echo $((a * $(f $((a - 1))))); }; f 12",
    "redirections": "exec 3>log; echo three >&3; echo err >&2 2>>log; ls missing 2>>log; exec 3>&-; cat log; "
    "echo again > log; cat < log; { echo a; echo b >&2; } > both 2>&1; cat both; echo x >&3",
    "files": "mkdir -p a/b/c; echo text > a/b/c/file; cp -r a z; mv z/b z/y; ln -s y z/link; ln a/b/c/file z/hard; "
    "find . -type f | sort; find z -name 'l*' -exec readlink {} +; stat -c '%A %h %s %F' z/hard z/link; "
    "rm -r a; test -e a || echo gone; du z | wc -l; chmod 4711 z/hard; stat -c %a z/hard; rmdir z; echo $?",
    "find and xargs": "for i in $(seq 1 30); do mkdir -p t/$((i % 5)); echo $i > t/$((i % 5))/$i.txt; done; "
    "find t -name '*2*' | sort | xargs cat; find t -type f -print0 | xargs -0 -n 7 echo | wc -l; "
    "find t -size -1 -o -newer t/0/5.txt | wc -l",
    "grep": "seq 1 200 > n; grep -c 1 n; grep -n '^1.*9$' n; grep -v 1 n | tail -n 1; grep -E '^(7|8)+$' n; "
    "grep -o '[0-9]$' n | sort | uniq -c; grep nothing n; echo $?",
    "sed": "seq 1 20 | sed -n '5,8p;/^1[0-9]$/{s/1/one/;p}'; echo 'a b c' | sed 's/\\(.\\) \\(.\\)/\\2-\\1/'; "
    "printf 'x\\ny\\nz\\n' > f; sed -i '2d' f; cat f; sed '1!G;h;$!d' f",
    "awk": "seq 1 100 | awk '{s += $1; q += $1 ^ 2} END {print s, q, sqrt(q), sin(1), exp(2.5), int(3.9)}'; "
    "echo 'a:b:c' | awk -F: '{print $3, NF, toupper($1); for (i = 1; i <= 3; i++) n[$i] = i; print length(n)}'; "
    'awk \'BEGIN {printf "%5.2f|%-8s|%x|%e\\n", 3.14159, "left", 255, 12345.678; print substr("hello", 2, 3)}\'',
    "sort": "printf '10 b\\n9 a\\n100 c\\n9 A\\n' > f; sort f; sort -n f; sort -rn f; sort -k2 f; sort -u -k1,1n f; "
    "seq 1 2000 | sort -R | sort -n | md5sum",
    "archives": "mkdir in; for i in 1 2 3; do seq 1 $((i * 1000)) > in/$i; done; tar czf a.tgz in; mkdir out; "
    "tar xzf a.tgz -C out; diff -r in out/in && echo same; tar tf a.tgz | sort; gzip -k in/3; "
    "gunzip -c in/3.gz | cmp - in/3 && echo equal; bzip2 -k in/3; bunzip2 -c in/3.bz2 | md5sum; "
    "zcat in/3.gz | tail -n 1; cpio --version > /dev/null 2>&1; ls in | cpio -o -H newc 2>/dev/null | wc -l",
    "digests": "seq 1 50000 > f; md5sum f; sha1sum f; sha256sum f; sha512sum f; cksum f; crc32 f; base64 f | md5sum; "
    "sha256sum f > s; sha256sum -c s; od -A d -t x1 f | head -n 3; xxd f | sed -n 2p",
    "text tools": "seq 1 30 > f; head -n 3 f; tail -n +29 f; cut -c1 f | uniq -c; paste -d, f f | tail -n 1; "
    "tac f | head -n 1; rev f | tail -n 1; fold -w 5 f | wc; split -l 10 f part; ls part*; nl f | tail -n 1; "
    "comm -12 partaa f | wc -l; diff partaa partab | head -n 4; expand f | wc -c; dd if=f bs=7 count=2 2>/dev/null",
    "arithmetic": "echo $((1 << 40)) $((-7 / 2)) $((-7 % 3)) $((0xff ^ 0x0f)) $((7 > 3 && 2 < 1)); "
    "echo 'scale=20; 4*a(1); 2^100; sqrt(2)' | bc -l; echo '2 3 + p' | dc; factor 1234567890",
    "dates": "date -u -d @86400 '+%Y-%m-%d %H:%M:%S'; touch -d '2020-02-03 04:05:06' f; stat -c %y f; "
    "date -r f +%s; cal 2 2024",
    "processes": "echo $$ > pid; test -d /proc/$(cat pid) && echo runs; sh -c 'exec sleep 0' && echo slept; "
    "timeout 0.2 sleep 5; echo $?; nice -n 5 nice; nohup echo hup 2>/dev/null; setsid echo session; "
    "(echo a; exec echo b); env -i A=1 env; which sed; id -u; uname -s",
    "editing": "printf 'one\\ntwo\\n' > f; printf '1i\\nzero\\n.\\nw\\nq\\n' | ed f; cat f",
    "named pipes": "mkfifo p; (echo through > p) & cat p; wait; (sleep 0.1; echo late > p) & read x < p; echo $x",
}


@pytest.fixture(scope="module")
def applets(tmp_path_factory, host_busybox, riscv64_busybox):
    """Two directories of links, one name for each applet, to the native and to the foreign busybox."""
    names = subprocess.run(
        [host_busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    directories = []
    for busybox in (host_busybox, riscv64_busybox):
        directory = tmp_path_factory.mktemp("applets")
        for name in names:
            (directory / name).symlink_to(busybox)
        directories.append(directory)
    return directories


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_script_has_the_same_result_as_natively(script, tmp_path, applets):
    results = []
    for prefix, directory in zip(((), EMULATOR), applets, strict=True):
        work = tmp_path / f"work{len(results)}"
        work.mkdir()
        # A pipe as standard error would mix lines of processes that run at once; each has a file instead.
        command = (*prefix, directory / "sh", "-c", f"exec 2>errors\n{script}")
        done = run(command, directory=work, PATH=str(directory))
        errors = (work / "errors").read_text().replace(str(directory), "")
        results.append((done.status, done.output.replace(str(directory), ""), errors))
    assert results[1] == results[0]
    assert results[0][1]


def test_interactive_shell_on_a_terminal(applets, tmp_path):
    """Line editing, Ctrl-C on a running command and job control, through a pseudo-terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environment = {**os.environ, "PATH": str(applets[1]), "PS1": "> ", "TERM": "dumb"}
        os.execve(EMULATOR[0], [*EMULATOR, str(applets[1] / "sh"), "-i"], environment)

    def expect(text, seconds=15):
        seen = b""
        deadline = time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)
        return seen

    try:
        expect(b"> ")
        os.write(terminal, b"echo fiX\x7fve $((2+3))\r")
        expect(b"five 5")
        os.write(terminal, b"sleep 100\r")
        time.sleep(0.5)
        os.write(terminal, b"\x03")
        os.write(terminal, b"echo status $?\r")
        expect(b"status 130")
        os.write(terminal, b"sleep 100\r")
        time.sleep(0.5)
        os.write(terminal, b"\x1a")
        expect(b"Stopped")
        os.write(terminal, b"kill %1; fg; tty; stty size; exit 7\r")
        assert b"/dev/pts/" in expect(b"0 0\r\n")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        os.close(terminal)


def test_vi_edits_a_file(applets, tmp_path):
    (tmp_path / "text").write_text("one\ntwo\nthree\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environment = {"PATH": str(applets[1]), "TERM": "vt100", "ANYVIRT_STATE": os.environ["ANYVIRT_STATE"]}
        os.execve(EMULATOR[0], [*EMULATOR, str(applets[1] / "vi"), "text"], environment)

    def swallow():
        try:
            while os.read(terminal, 4096):
                pass
        except OSError:
            return

    reader = threading.Thread(target=swallow)
    reader.start()
    try:
        for keys in (b"jdd", b"ofour\x1b", b":%s/o/0/\r", b":wq\r"):
            time.sleep(0.3)
            os.write(terminal, keys)
        _, status = os.waitpid(pid, 0)
        reader.join()
        assert os.waitstatus_to_exitcode(status) == 0
        assert (tmp_path / "text").read_text() == "0ne\nthree\nf0ur\n"
    finally:
        os.close(terminal)
