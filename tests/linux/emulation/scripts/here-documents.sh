name=world
cat <<END | tr o 0
hello $name $(echo nested) $((6 * 7))
END
cat <<'END'
$name stays
END
