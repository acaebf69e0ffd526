printf '10 b\n9 a\n100 c\n9 A\n' > f
sort f
sort -n f
sort -rn f
sort -k2 f
sort -u -k1,1n f
seq 1 2000 | sort -R | sort -n | md5sum
