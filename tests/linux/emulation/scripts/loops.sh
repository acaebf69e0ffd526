i=0
while [ $i -lt 50 ]
do i=$((i + 1))
case $i in *3) continue;;
45) break;;
esac
echo -n $i,
done
echo
for x in a b c
do echo $x
done | cat -n
