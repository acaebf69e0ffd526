seq 1 50000 > f
md5sum f
sha1sum f
sha256sum f
sha512sum f
cksum f
crc32 f
base64 f | md5sum
sha256sum f > s
sha256sum -c s
od -A d -t x1 f | head -n 3
xxd f | sed -n 2p
