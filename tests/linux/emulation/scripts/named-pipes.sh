mkfifo p
(echo through > p) & cat p
wait
(sleep 0.1
echo late > p) & read x < p
echo $x
