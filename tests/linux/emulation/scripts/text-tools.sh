seq 1 30 > f
head -n 3 f
tail -n +29 f
cut -c1 f | uniq -c
paste -d, f f | tail -n 1
tac f | head -n 1
rev f | tail -n 1
fold -w 5 f | wc
split -l 10 f part
ls part*
nl f | tail -n 1
comm -12 partaa f | wc -l
diff partaa partab | head -n 4
expand f | wc -c
dd if=f bs=7 count=2 2>/dev/null
