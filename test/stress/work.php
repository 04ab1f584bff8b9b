<?php
// Work for json, dom, mbstring and opcache, with results that depend on nothing but this file. It
// writes scripts for opcache into the working directory.
declare(strict_types=1);

mt_srand(20);

function words(int $count): array {
  $syllables = ['ka', 'ri', 'tö', 'mü', 'сан', 'ле', '東', '京', 'é', 'ß', 'x'];
  $words = [];
  for ($i = 0; $i < $count; $i++) {
    $word = '';
    for ($n = mt_rand(1, 12); $n > 0; $n--) $word .= $syllables[mt_rand(0, count($syllables) - 1)];
    $words[] = $word;
  }
  return $words;
}

function tree(int $depth): array {
  $node = ['words' => words(mt_rand(0, 8)), 'number' => mt_rand() / 7, 'flag' => $depth % 2 === 0];
  if ($depth > 0) for ($i = 0; $i < 4; $i++) $node["child$i"] = tree($depth - 1);
  return $node;
}

foreach (['json', 'dom', 'mbstring', 'Zend OPcache'] as $extension) {
  echo $extension, ': ', extension_loaded($extension) ? 'loaded' : 'MISSING', "\n";
}

// json
for ($round = 0; $round < 5; $round++) {
  $tree = tree(5);
  $text = json_encode($tree, JSON_UNESCAPED_UNICODE | JSON_PRETTY_PRINT | JSON_THROW_ON_ERROR);
  $again = json_decode($text, true, 512, JSON_THROW_ON_ERROR);
  echo 'json: ', strlen($text), ' ', md5($text), ' ', $again == $tree ? 'same' : 'DIFFERENT', "\n";
}
try {
  json_decode('{"a": [1, 2', false, 512, JSON_THROW_ON_ERROR);
} catch (JsonException $e) {
  echo 'json: ', $e->getMessage(), "\n";
}

// dom: libxml2 allocates by itself, and php frees what it gave away.
for ($round = 0; $round < 5; $round++) {
  $document = new DOMDocument('1.0', 'UTF-8');
  $root = $document->appendChild($document->createElement('list'));
  foreach (words(3000) as $i => $word) {
    $item = $root->appendChild($document->createElement('item'));
    $item->setAttribute('n', (string)$i);
    $item->appendChild($document->createTextNode($word));
    if ($i % 5 === 0) $item->appendChild($document->createCDATASection("<$word>"));
    if ($i % 7 === 0) $root->removeChild($item);
  }
  $text = $document->saveXML();
  $parsed = new DOMDocument();
  $parsed->loadXML($text);
  $path = new DOMXPath($parsed);
  $found = $path->query('//item[contains(., "ka") and @n mod 3 = 1]');
  $sum = 0;
  foreach ($found as $item) {
    $sum += (int)$item->getAttribute('n') + mb_strlen($item->textContent);
  }
  echo 'dom: ', strlen($text), ' ', md5($parsed->saveXML()), " $found->length $sum\n";
}
libxml_use_internal_errors(true);
echo 'dom: ', (new DOMDocument())->loadXML('<a><b></a>') ? 'parsed' : 'refused', ' with ',
     count(libxml_get_errors()), " errors\n";
libxml_clear_errors();

// mbstring
$all = implode(' ', words(20000));
foreach (['UTF-16LE', 'UTF-8', 'SJIS', 'EUC-JP', 'ISO-8859-1', 'UTF-7'] as $encoding) {
  $there = mb_convert_encoding($all, $encoding, 'UTF-8');
  $back = mb_convert_encoding($there, 'UTF-8', $encoding);
  echo "mbstring: $encoding ", strlen($there), ' ', md5($back), "\n";
}
echo 'mbstring: ', mb_strlen($all), ' ', md5(mb_strtoupper($all)), ' ',
     mb_substr_count($all, '東京'), ' ', md5(implode(',', mb_str_split($all, 7))), "\n";

// opcache
echo 'opcache: ', opcache_get_status(false)['opcache_enabled'] ? 'on' : 'OFF', "\n";
$result = '';
for ($i = 0; $i < 40; $i++) {
  $file = getcwd() . "/part$i.php";
  $lines = ['<?php', 'return function (int $n): array {', '  $s = [];'];
  foreach (words(50) as $k => $word) $lines[] = "  \$s[] = [$k, '$word', \$n * $k, md5('$word')];";
  array_push($lines, '  return $s;', '};', '');
  file_put_contents($file, implode("\n", $lines));
  touch($file, 1000000000);  // opcache leaves files alone that are being written
  if (!opcache_compile_file($file) || !opcache_is_script_cached($file)) {
    echo "opcache: part $i is NOT CACHED\n";
  }
  $part = require $file;
  for ($n = 0; $n < 20; $n++) $result .= md5(serialize($part($n)));
}
echo 'opcache: ', strlen($result), ' ', md5($result), "\n";

// Strings, sorting, patterns, large arrays: php's own allocator asks for memory in large pieces.
$words = words(50000);
sort($words);
$count = array_count_values($words);
arsort($count);
ksort($count);
echo 'php: ', count($count), ' ', md5(serialize($count)), ' ',
     preg_match_all('/(ka|ri)+\p{Han}/u', $all), "\n";
