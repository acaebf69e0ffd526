mkdir in
for i in 1 2 3
do seq 1 $((i * 1000)) > in/$i
done
tar czf a.tgz in
mkdir out
tar xzf a.tgz -C out
diff -r in out/in && echo same
tar tf a.tgz | sort
gzip -k in/3
gunzip -c in/3.gz | cmp - in/3 && echo equal
bzip2 -k in/3
bunzip2 -c in/3.bz2 | md5sum
zcat in/3.gz | tail -n 1
cpio --version > /dev/null 2>&1
ls in | cpio -o -H newc 2>/dev/null | wc -l
