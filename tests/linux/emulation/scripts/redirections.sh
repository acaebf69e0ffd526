exec 3>log
echo three >&3
echo err >&2 2>>log
ls missing 2>>log
exec 3>&-
cat log
echo again > log
cat < log
{ echo a
echo b >&2
} > both 2>&1
cat both
echo x >&3
