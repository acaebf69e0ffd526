trap "echo caught USR1" USR1
kill -USR1 $$
trap "echo leaving" EXIT
(trap 'echo inner; exit 3' TERM
kill -TERM $(exec sh -c 'echo $PPID')
sleep 1)
echo $?
exit 5
