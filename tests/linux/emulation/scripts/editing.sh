printf 'one\ntwo\n' > f
printf '1i\nzero\n.\nw\nq\n' | ed f
cat f
