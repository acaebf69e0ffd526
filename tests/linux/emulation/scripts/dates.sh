date -u -d @86400 '+%Y-%m-%d %H:%M:%S'
touch -d '2020-02-03 04:05:06' f
stat -c %y f
date -r f +%s
cal 2 2024
