# The shell itself: arrays, arithmetic, jobs, coprocesses, traps, process substitution.
declare -A m=([a]=1 [b]=2 [c]=3)
for k in $(printf '%s\n' "${!m[@]}" | sort); do echo "$k=${m[$k]}"; done
f() { local x=$1; ((x <= 1)) && { echo 1; return; }; echo $((x * $(f $((x - 1))))); }
f 8
a=()
for i in {1..1000}; do a+=("$((i * i % 97))"); done
printf '%s\n' "${a[@]}" | sort -n | uniq -c | sort -rn -k1,1 -k2,2 | head -5
diff <(seq 10) <(seq 2 11)
coproc cat
echo hello >&${COPROC[1]}
read -r line <&${COPROC[0]}
echo $line
kill $COPROC_PID
trap 'echo got USR1' USR1
kill -USR1 $$
trap 'echo bye' EXIT
(sleep 0.1; exit 7) &
wait $!
echo "status $?"
sleep 5 &
p=$!
kill -9 $p
wait $p 2> /dev/null
echo "killed $?"
mkfifo /tmp/q
(echo through fifo > /tmp/q &)
cat /tmp/q
printf '%q %5.2f %x %s\n' "a b" 3.14159 255 "$(echo abc | tr a-z A-Z)"
[[ foo123 =~ ^([a-z]+)([0-9]+)$ ]] && echo "${BASH_REMATCH[@]}"
umask
echo ${#a[@]} ${a[@]:5:3}
read -t 0.05 x < <(sleep 1) || echo timeout $?
set -o pipefail
false | true || echo pipefail
cat /proc/self/comm
cat << 'TEXT'
here $HOME
TEXT
bash -c 'echo "$0 $# $*"' name a 'b c'
exec -a other bash -c 'echo $0; IFS= read -r -d "" name < /proc/self/cmdline; echo $name'
