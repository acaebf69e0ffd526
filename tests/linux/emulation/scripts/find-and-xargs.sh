for i in $(seq 1 30)
do mkdir -p t/$((i % 5))
echo $i > t/$((i % 5))/$i.txt
done
find t -name '*2*' | sort | xargs cat
find t -type f -print0 | xargs -0 -n 7 echo | wc -l
touch -d '2001-01-01' t/0/5.txt
find t -name '?.txt' -newer t/0/5.txt | wc -l
