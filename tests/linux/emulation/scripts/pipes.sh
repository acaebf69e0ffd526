seq 1 1000 | grep 7 | sed 's/7/seven/g' | tail -n 3 | tr a-z A-Z
