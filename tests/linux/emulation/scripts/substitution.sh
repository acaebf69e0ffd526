x=$(for i in 1 2 3
do echo "line $i"
done)
echo "$x" | wc -l
echo ${x##*line}
y=abcdef
echo ${y#abc} ${y%def} ${#y} ${z:-default} ${y/cd/CD}
echo `expr 3 + 4`
