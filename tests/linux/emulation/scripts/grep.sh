seq 1 200 > n
grep -c 1 n
grep -n '^1.*9$' n
grep -v 1 n | tail -n 1
grep -E '^(7|8)+$' n
grep -o '[0-9]$' n | sort | uniq -c
grep nothing n
echo $?
