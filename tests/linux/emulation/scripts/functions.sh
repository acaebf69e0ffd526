f() { local a=$1
[ $a -le 1 ] && { echo 1
return
}
echo $((a * $(f $((a - 1)))))
}
f 12
