# Strings, hashes, arrays, regular expressions, sprintf, sort and eval; prints digests.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);

my $state = 12345;
sub random_below {
  $state = ($state * 1103515245 + 12345) % 2147483648;
  return int($state / 8) % $_[0];
}

my (%words, @lines);
for my $n (1 .. 60000) {
  my $word = join '', map { chr(97 + random_below(26)) } 1 .. 1 + random_below(9);
  $words{$word} .= "$n,";
  push @{$lines[random_below(500)]}, $word;
}
print "words ", sha256_hex(join ';', map { "$_=$words{$_}" } sort keys %words), "\n";

my $text = join "\n", map { join ' ', @{$_ || []} } @lines;
(my $turned = $text) =~ s/(\w+) (\w+)/$2 $1/g;
my %ends;
$ends{$1}++ while $text =~ /(\w\w)\b/g;
print "text ", sha256_hex($turned . join ',', map { "$_$ends{$_}" } sort keys %ends), "\n";

my %tree;
for my $word (sort keys %words) {
  my $node = \%tree;
  $node = $node->{$_} //= {} for split //, $word;
  $node->{end} = [length $words{$word}, reverse $word];
}
sub flatten {
  my ($node) = @_;
  return join '|', map { ref $node->{$_} eq 'HASH' ? "$_(" . flatten($node->{$_}) . ")"
                                                   : "@{$node->{$_}}" } sort keys %$node;
}
print "tree ", sha256_hex(flatten(\%tree)), "\n";
delete $tree{$_} for grep { ord($_) % 2 } keys %tree;
print "half a tree ", sha256_hex(flatten(\%tree)), "\n";

my $sum = 0;
for my $n (1 .. 800) {
  my $code = eval "sub { my \$x = shift; return \$x * $n + length('" . ('y' x $n) . "') }";
  $sum += $code->($n);
}
print "closures $sum\n";

my $big = '';
$big .= sprintf "%08x%-20s%s", $_, "field $_", "z" x ($_ % 300) for 1 .. 20000;
substr $big, $_ * 97, 5, 'replaced' for 1 .. 3000;
print "big ", length $big, " ", sha256_hex($big), "\n";
