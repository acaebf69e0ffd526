for i in 3 1 2
do (sleep 0.$i
echo done $i) & done
wait
echo all
sleep 10 & kill $!
wait $!
echo status $?
