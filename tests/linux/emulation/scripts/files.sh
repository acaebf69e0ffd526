mkdir -p a/b/c
echo text > a/b/c/file
cp -r a z
mv z/b z/y
ln -s y z/link
ln a/b/c/file z/hard
find . -type f | sort
find z -name 'l*' -exec readlink {} +
stat -c '%A %h %s %F' z/hard z/link
rm -r a
test -e a || echo gone
du z | wc -l
chmod 4711 z/hard
stat -c %a z/hard
rmdir z
echo $?
