# Strings, hashes, arrays and regular expressions. Prints sums.
use strict;
use warnings;

my $state = 12345;
sub random_below {
  $state = ($state * 1103515245 + 12345) % 2147483648;
  return int($state / 8) % $_[0];
}

my $sum = 0;
for my $round (1 .. $ARGV[0]) {
  my (%words, @lines);
  for my $n (1 .. 15000) {
    my $word = join '', map { chr(97 + random_below(26)) } 1 .. 1 + random_below(8);
    $words{$word} .= "$n,";
    push @{$lines[random_below(300)]}, $word;
  }
  my $text = join "\n", map { join ' ', @{$_ || []} } @lines;
  $text =~ s/(\w+) (\w+)/$2 $1/g;
  my %ends;
  $ends{$1}++ while $text =~ /(\w\w)\b/g;
  my @records = map { {word => $_, places => [split /,/, $words{$_}]} } sort keys %words;
  $sum += $#{$_->{places}} * length $_->{word} for @records;
  $sum += length($text) + keys %ends;
}
print "$sum\n";
