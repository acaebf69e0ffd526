echo $$ > pid
test -d /proc/$(cat pid) && echo runs
sh -c 'exec sleep 0' && echo slept
timeout 0.2 sleep 5
echo $?
nice -n 5 nice
nohup echo hup 2>/dev/null
setsid echo session
(echo a
exec echo b)
env -i A=1 env
which sed
id -u
uname -s
