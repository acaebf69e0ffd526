# perl: hashes, formats, processes, signals, pipes.
cat > /tmp/program.pl << 'PERL'
my %h;
$h{$_ % 7} += $_ for 1..100000;
print join(",", map {"$_=$h{$_}"} sort keys %h), "\n";
printf "%.10f %s\n", atan2(1, 1) * 4, sprintf("%vd", "1.22.333");
print join(" ", sort { $b <=> $a } map { $_ ** 2 % 101 } 1..50), "\n";
print scalar reverse("hello"), "\n";
open(my $f, "-|", "echo from child; exit 3");
print <$f>;
close $f;
print $? >> 8, "\n";
$SIG{ALRM} = sub { print "alarm\n" };
alarm 1;
select undef, undef, undef, 3;
fork or exit 9;
wait;
print $? >> 8, "\n";
print join("|", "a1b22c333" =~ /(\d+)/g), "\n";
eval { die {code => 5} };
print $@->{code}, "\n";
print length pack("n N q", 1, 2, 3), "\n";
pipe(my $r, my $w);
$| = 1;
if (!fork) { close $r; print $w "piped\n"; close $w; exit }
close $w;
print <$r>;
wait;
print join(",", (stat "/dev/null")[2]), "\n";
print join(",", unpack("(A2)*", "aabbcc")), "\n";
print 2 ** 53 + 1, " ", 1e308 * 10, " ", -17 % 5, " ", 7 / 2, "\n";
PERL
perl /tmp/program.pl
