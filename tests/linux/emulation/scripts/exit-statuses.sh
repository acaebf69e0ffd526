false
echo $?
(exit 9)
echo $?
no-such-command
echo $?
echo x | false
echo $?
mkdir d
./d
echo $?
touch n
./n
echo $?
sh -c 'kill -9 $$'
echo $?
! true
echo $?
