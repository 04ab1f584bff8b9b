"""Everyday programs print the same with the library as without it, and nothing else."""
import shutil

import pytest

COMMANDS = {
    "grep": ["grep", "-n", "root", "/etc/passwd"],
    "grep_recursive": ["grep", "-rlE", "^(root|daemon):", "/etc/passwd", "/etc/group"],
    "sort": ["sort", "-t:", "-k3,3n", "/etc/passwd"],
    "getent_hosts": ["getent", "hosts", "localhost"],
    "getent_passwd": ["getent", "passwd"],
    "sh": ["sh", "-c", "for i in 1 2 3; do echo $i | cat; done"],
    "ls": ["ls", "-l", "/etc"],
    "ls_recursive": ["ls", "-R", "/usr/share/doc/bash"],
    "find": ["find", "/etc", "-maxdepth", "1", "-name", "*.conf"],
    "sed": ["sed", "-E", "s/([a-z]+):/<\\1>/g", "/etc/passwd"],
    "awk": ["awk", "-F:", "{n[$7]++} END {for (s in n) print s, n[s] | \"sort\"}", "/etc/passwd"],
    "python3": ["/usr/bin/python3", "-c", "import json, re, collections; "
                "print(json.dumps({str(i): list(range(i)) for i in range(99)}, sort_keys=True))"],
    "python3_debug_malloc": ["/usr/bin/env", "PYTHONMALLOC=malloc", "/usr/bin/python3", "-c",
                             "print(sum(len(str(i)) for i in range(100000)))"],
    "python3_threads": ["/usr/bin/python3", "-c",
                        "import threading\nr=[]\nt=[threading.Thread(target=lambda: r.append("
                        "len(['x'*i for i in range(3000)]))) for _ in range(8)]\n"
                        "[x.start() for x in t]; [x.join() for x in t]; print(r)"],
    "python3_subprocess": ["/usr/bin/python3", "-c",
                           "import subprocess; print(subprocess.check_output(['echo', 'hi']))"],
    "perl": ["perl", "-e", "my %h; $h{$_ % 997} .= $_ for 1..50000; "
             "print join(',', map { length $h{$_} } sort keys %h), qq(\\n)"],
    "perl_fork": ["perl", "-e", "my $p = fork; if (!$p) { my @a = (1) x 1e5; exit 3 } "
                  "waitpid $p, 0; print $? >> 8, qq(\\n)"],
    "bash": ["bash", "-c", "a=(); for ((i = 0; i < 3000; i++)); do a+=(\"x$i\"); done; "
             "echo ${#a[@]} ${a[2999]} $(echo sub | tr a-z A-Z)"],
    "tar": ["sh", "-c", "tar cf - /etc/passwd /etc/group 2>/dev/null | tar tf -"],
    "gzip": ["sh", "-c", "seq 20000 | gzip | gzip -d | cksum"],
    "xargs": ["sh", "-c", "seq 500 | xargs -n 50 echo"],
    "locale": ["locale", "-a"],
    "man_page_formatter": ["sh", "-c", "printf '.TH A 1\\n.SH NAME\\nx\\n' | nroff -man"],
}


@pytest.mark.parametrize("tool", COMMANDS)
def test_tool(run_plain, run_ok, tool):
  command = COMMANDS[tool]
  if shutil.which(command[0]) is None or (tool == "man_page_formatter"
                                          and shutil.which("nroff") is None):
    pytest.skip(f"{command[0]} is not installed")
  expected = run_plain(command)
  assert expected.returncode == 0 and expected.stdout
  result = run_ok(command)
  assert result.stdout == expected.stdout
  assert result.stderr == expected.stderr


@pytest.mark.parametrize("tool", ["grep", "sort", "python3", "perl", "bash"])
def test_tool_has_the_library(run_ok, tool):
  result = run_ok(COMMANDS[tool], {"MINITC_VERBOSE": "1"})
  assert "libminitc" in result.stderr


@pytest.mark.parametrize("tool", ["python3", "perl", "bash"])
def test_tool_allocates_from_the_library(run_ok, tool):
  # Not grep and sort, which close stderr themselves, nor others that leave by _exit.
  result = run_ok(COMMANDS[tool], {"MINITC_STATS": "1"})
  assert "size class" in result.stderr


def test_malloc_trim_of_the_program_is_ours(run_ok):
  """CDLL(None) finds the preloaded malloc_trim, as services that call it through ctypes should."""
  code = ("import ctypes\n"
          "c = ctypes.CDLL(None)\n"
          "c.malloc_usable_size.restype = ctypes.c_size_t\n"
          "c.malloc.restype = ctypes.c_void_p\n"
          "p = ctypes.c_void_p(c.malloc(100))\n"
          "print(c.malloc_usable_size(p), c.malloc_trim(0) in (0, 1))")
  result = run_ok(["/usr/bin/python3", "-c", code])
  assert result.stdout == "112 True\n"
