"""minitc report: the page in a browser. Its numbers are those of the file, nothing is wider than the
window, and the browser has nothing to complain of."""
import html
import html.parser
import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMAND = ROOT / "scripts" / "minitc"
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", "--log-level=0"]
# Grows to 40 MiB of many sizes, keeps every third object, and ends by a signal: no line at exit.
WORK = """
import ctypes, os, random, time
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.free.argtypes = [ctypes.c_void_p]
random.seed(7)
kept = []
for step in range(30):
  kept += [c.malloc(random.choice([40, 100, 700, 3000, 300000])) for _ in range(100)]
  if step == 20:
    for i in range(len(kept)):
      if i % 3: c.free(kept[i])
    del kept[:]
  c.minitc_stats_write()
  time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
TIERS = ["live", "thread_cached", "central", "page_heap_free", "returned"]
WIDTHS = [1280, 400]
# Run in the page: what a user would see, as JSON in an element of the page around it.
PROBE = """<script>addEventListener("load", () => {
  const styles = getComputedStyle(document.body);
  const all = (what) => [...document.querySelectorAll(what)].filter((e) => e.getClientRects().length);
  const line = parent.document.createElement("pre");
  line.textContent = JSON.stringify({
    width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth,
    wide: all("body *").filter((e) => e.getBoundingClientRect().right > innerWidth + 1 &&
        getComputedStyle(e.closest("thead") || e).position !== "absolute").map(
            (e) => e.outerHTML.slice(0, 80)),
    charts: all("svg").map((e) => e.classList[0]),
    smallest: Math.min(...all("td, th, p, li, svg text").filter((e) => e.textContent.trim()).map(
        (e) => e.ownerSVGElement ? e.getBoundingClientRect().height
                                 : parseFloat(getComputedStyle(e).fontSize))),
    text: styles.color, page: styles.backgroundColor});
  parent.document.body.append(line);
});</script>"""


@pytest.fixture(scope="module")
def recorded(run_preloaded, tmp_path_factory):
  """The file of a process that was killed."""
  path = tmp_path_factory.mktemp("recorded") / "lines"
  run_preloaded(["/usr/bin/python3", "-c", WORK], {"MINITC_STATS_FILE": str(path)})
  return path


@pytest.fixture(scope="module")
def page(recorded):
  path = recorded.with_name("page.html")
  done = subprocess.run([COMMAND, "report", recorded, "-o", path], capture_output=True, text=True,
                        check=False)
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
  return path


class Tables(html.parser.HTMLParser):
  """The rows of each table, by its class, as lists of text."""

  def __init__(self, text):
    super().__init__()
    self.rows = {}
    self.table = self.row = None
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    if tag == "table":
      self.table = self.rows.setdefault(dict(attrs)["class"], [])
    elif tag == "tr":
      self.row = []
      self.table.append(self.row)
    elif tag in ("td", "th"):
      self.row.append("")

  def handle_endtag(self, tag):
    if tag == "tr":
      self.row = None

  def handle_data(self, data):
    if self.row:
      self.row[-1] += data


def integer(text):
  return int(text.replace(",", ""))


def test_numbers_are_those_of_the_file(recorded, page):
  lines = [json.loads(line) for line in recorded.read_text().splitlines()]
  last = lines[-1]
  text = page.read_text(encoding="utf-8")
  rows = Tables(text).rows
  figures = {row[0].replace("-", "_"): row for row in rows["figures"][1:]}
  for name in [*TIERS, "mapped", "metadata", "peak", "large_bytes"]:
    assert integer(figures[name][1]) == last[name]
    assert integer(figures[name][3]) == max(line[name] for line in lines)
  fullest = max(lines, key=lambda line: sum(line[name] for name in TIERS[:4]))
  assert fullest != last and fullest["classes"]
  refilled = {row["bytes"]: row["refilled"] for row in last["classes"]}
  expected = {row["bytes"]: [row["spans"], row["live"], row["live"] * row["bytes"],
                             row["thread_cached"] * row["bytes"], row["central"] * row["bytes"],
                             row["pinned"] * row["bytes"], row["pinning"], refilled[row["bytes"]]]
              for row in fullest["classes"]}
  shown = {integer(row[0]): list(map(integer, row[1:6] + row[7:10])) for row in rows["classes"][1:]}
  assert shown == expected
  weights = [sum(shown[size][2:5]) for size in shown]
  assert weights == sorted(weights, reverse=True)
  assert {row[0]: row[1] for row in rows["options"][1:]} == {
      name: str(value) for name, value in last["options"].items()}
  assert f"Memory of process {last['pid']}" in text


def test_the_page_needs_nothing_else(page):
  text = page.read_text(encoding="utf-8")
  assert not re.search(r"""(?:src|href|xlink:href)\s*=\s*["'](?!data:,)|url\(|@import|<script""", text)
  assert re.findall(r"https?://[^\s\"']*", text) == ["http://www.w3.org/2000/svg"] * 4
  assert not re.search(r"\sid=", text.split("</style>")[1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(page, tmp_path, scheme):
  """In frames of both widths: the browser's own window is no narrower than 500."""
  probed = html.escape(page.read_text(encoding="utf-8") + PROBE)
  around = tmp_path / "around.html"
  around.write_text('<meta charset="utf-8"><meta name="color-scheme" content="light dark">' + "".join(
      f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{probed}"></iframe>'
      for width in WIDTHS), encoding="utf-8")
  done = subprocess.run(
      [*CHROMIUM, f"--user-data-dir={tmp_path / 'user'}",
       f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}", "--dump-dom",
       around.as_uri()], capture_output=True, text=True, timeout=120, check=True)
  assert "CONSOLE" not in done.stderr
  views = [json.loads(html.unescape(text)) for text in re.findall("<pre>(.*?)</pre>", done.stdout)]
  assert sorted(view["width"] for view in views) == sorted(WIDTHS)
  for view in views:
    assert view["overflow"] <= 0 and view["wide"] == []
    assert view["charts"] == ["wide" if view["width"] == 1280 else "narrow"] * 2
    assert view["smallest"] >= 12
    brightness = {name: sum(map(int, re.findall(r"\d+", view[name])[:3])) for name in ("text", "page")}
    dark, light = sorted(brightness, key=brightness.get)
    assert (dark == "page") == (scheme == "dark")
    assert brightness[light] - brightness[dark] > 450


def test_one_line_makes_a_page_without_charts(recorded, tmp_path):
  path = tmp_path / "lines"
  path.write_text(recorded.read_text().splitlines()[3] + "\n")
  subprocess.run([COMMAND, "report", path, "-o", tmp_path / "out.html"], check=True)
  text = (tmp_path / "out.html").read_text(encoding="utf-8")
  assert "<svg" not in text and text.count("too few lines for a chart") == 2


def test_which_process(recorded, tmp_path):
  """The one with the highest peak, or that which is named."""
  line = json.loads(recorded.read_text().splitlines()[-1])
  path = tmp_path / "lines"
  path.write_text("".join(json.dumps({**line, "pid": pid, "peak": peak}) + "\n"
                          for pid, peak in [(11, 5 << 30), (12, 6 << 30), (13, 4 << 30)]))
  for words, pid in [([], 12), (["--pid", "13"], 13)]:
    subprocess.run([COMMAND, "report", path, *words, "-o", tmp_path / "out.html"], check=True)
    assert f"Memory of process {pid}<" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_processes_of_the_same_number(recorded, tmp_path):
  """As each start of a container has."""
  lines = [json.loads(line) for line in recorded.read_text().splitlines()]
  later = [{**line, "peak": 1, "monotonic_ms": line["monotonic_ms"] + 10**6,
            "classes": line["classes"][:1]} for line in lines[:5]]
  path = tmp_path / "lines"
  path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *later]))
  subprocess.run([COMMAND, "report", path, "-o", tmp_path / "out.html"], check=True)
  text = (tmp_path / "out.html").read_text(encoding="utf-8")
  assert f"in {len(lines)} lines" in text and "lines of 2 processes" in text


@pytest.mark.parametrize("words, message", [
    (["{lines}"], "the following arguments are required: -o"),
    (["{lines}", "-o", "/no/such/folder/out.html"], "/no/such/folder/out.html"),
    (["{lines}", "-o", "{out}", "--pid", "1"], "process 1 has written nothing"),
    (["{lines}", "-o", "{out}", "--pid", "one"], "invalid int value: 'one'"),
    (["/no/such/file", "-o", "{out}"], "/no/such/file: No such file or directory")])
def test_bad_input(recorded, tmp_path, words, message):
  words = [word.format(lines=recorded, out=tmp_path / "out.html") for word in words]
  done = subprocess.run([COMMAND, "report", *words], capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (2, "")
  assert message in done.stderr.splitlines()[-1]
  assert not (tmp_path / "out.html").exists()
