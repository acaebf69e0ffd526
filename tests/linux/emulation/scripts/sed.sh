seq 1 20 | sed -n '5,8p;/^1[0-9]$/{s/1/one/;p}'
echo 'a b c' | sed 's/\(.\) \(.\)/\2-\1/'
printf 'x\ny\nz\n' > f
sed -i '2d' f
cat f
sed '1!G;h;$!d' f
