# coreutils, findutils, grep, sed, mawk and diffutils on files.
export LC_ALL=C
cd $(mktemp -d)
seq 1 20000 > n
sha256sum n; md5sum n; b2sum n; cksum n; wc n
tac n | head -2
split -l 5000 n part.
ls part.*
cat part.* | cmp - n && echo same
sort -R --random-source=n n | sort -n | cmp - n && echo sorted
paste -d, <(seq 3) <(seq 4 6); join <(seq 3) <(seq 2 4); comm <(seq 3) <(seq 2 4)
tr 0-9 a-j < n | tail -1
ln -s n l
readlink -f l | sed 's#.*/##'
touch -d '2020-02-03 04:05:06 UTC' n
chmod 741 n
stat -c '%s %F %a %h' n l
date -u -r n
ls -l n | cut -c1-10
mkdir -p a/b/c
cp -a a d
mv d e
rm -r e
ls -R a
du --apparent-size n
truncate -s 1M big
echo abc | dd of=big bs=1k seek=2 conv=notrunc status=none
od -c big | head -4
timeout 0.2 sleep 5
echo $?
nice -n 5 nice
env -i A=b env
printf 'a\0b\0' | xargs -0 -n1 echo
factor 1234567890123
expr 3 \* 4
numfmt --to=iec 123456789
base64 n | head -1
find . -type f -size +10k -printf '%f %s\n' | sort
find . -name 'part.*' -exec cat {} + | wc -l
grep -c 9 n
grep -P '^(\d)\1+$' n | head -12
grep -rl 777 . | sort | head -3
sed -n '1~5000p;$!{N;s/\n/-/;}' n | head -5
sed -E 's/([0-9])([0-9])/\2\1/;q' n
sed -i 's/^5$/five/' n
sed -n 5p n
mawk '{s+=$1} END {printf "%d %.3f\n", s, sqrt(s)}' n
mawk 'BEGIN{while(("echo a:b" | getline l)>0) print l; print length("abc"), toupper("x"), substr("hello",2,3)}'
diff -u <(seq 5) <(seq 2 6) | tail -n +3
mknod p p
ls -l p | cut -c1
yes | head -c 1000000 | wc -c
head -c 100000 /dev/urandom | wc -c
id -u
tty < /dev/null
