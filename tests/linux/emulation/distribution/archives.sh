# tar and what compresses, with one thread each.
export LC_ALL=C XZ_DEFAULTS=-T1
cd $(mktemp -d)
mkdir t
seq 1 50000 > t/n
ln -s n t/l
ln t/n t/hard
chmod 640 t/n
truncate -s 5M t/sparse
touch -h -d @0 t/*
for way in gzip xz 'zstd --single-thread --no-asyncio'; do
    tar --sort=name --mtime=@0 --owner=0 --group=0 -I "$way" -cf a t
    sha256sum a
    mkdir o
    tar -I "$way" -xf a -C o
    diff -r t o/t && echo $way
    rm -r o
done
tar -cSf a t
tar --utc -tvf a | sort
cp t/n n
gzip -9nk n
gzip -l n.gz | tail -1
zcat n.gz | cmp - n && echo gz
xz -k n
xzcat n.xz | cmp - n && echo xz
zstd -q -19 --single-thread --no-asyncio n -o n.zst
zstd -dcq --no-asyncio n.zst | cmp - n && echo zst
sha256sum n.*
