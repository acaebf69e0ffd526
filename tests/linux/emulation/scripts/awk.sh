seq 1 100 | awk '{s += $1; q += $1 ^ 2} END {print s, q, sqrt(q), sin(1), exp(2.5), int(3.9)}'
echo 'a:b:c' | awk -F: '{print $3, NF, toupper($1); for (i = 1; i <= 3; i++) n[$i] = i; print length(n)}'
awk 'BEGIN {printf "%5.2f|%-8s|%x|%e\n", 3.14159, "left", 255, 12345.678; print substr("hello", 2, 3)}'
