"""Under qemu's emulation of a process, with pages of 4 to 64 KiB.

qemu tells an AArch64 program how long its pages are. An x86-64 program believes in 4 KiB, and
where qemu's are longer its MADV_DONTNEED does nothing for what is not whole ones, and says so not.
"""
import shutil

import pytest

from cases import cases_of

LONGEST = 65536
CASES = [(program, case) for program in ("semantics", "resizing")
         for case in cases_of(f"{program}.c")]
COMMANDS = {
    "bash": ["bash", "-c", "a=(); for ((i = 0; i < 3000; i++)); do a+=(\"x$i\"); done; "
             "echo ${#a[@]} ${a[2999]} $(echo sub | tr a-z A-Z)"],
    "perl": ["perl", "-e", "my %h; $h{$_ % 997} .= $_ for 1..50000; "
             "print join(',', map { length $h{$_} } sort keys %h), qq(\\n)"],
    "python3": ["/usr/bin/python3", "-c", "import json; a = [bytearray(i * 500) for i in range(99)]; "
                "print(sum(map(any, a)), len(json.dumps({str(i): list(range(i)) for i in range(99)})))"],
    "sort": ["sort", "-t:", "-k3,3n", "/etc/passwd"],
    "sqlite3": ["sqlite3", ":memory:", "create table t(a, b); with recursive n(i) as (select 1 union"
                " all select i + 1 from n where i < 20000) insert into t select i, hex(zeroblob(50))"
                " from n; select count(*), sum(length(b)) from t order by a;"],
}


@pytest.mark.parametrize("page_bytes", [4096, 16384, LONGEST])
@pytest.mark.parametrize("tool", COMMANDS)
def test_tool(run_plain, run_emulated, tool, page_bytes):
  command = COMMANDS[tool]
  expected = run_plain(command)
  result = run_emulated([shutil.which(command[0]), *command[1:]], page_bytes,
                        {"MINITC_VERBOSE": "1"})
  assert (result.returncode, result.stdout) == (0, expected.stdout)
  said = result.stderr.splitlines()
  assert said and all(line.startswith("libminitc: ") for line in said)


@pytest.mark.parametrize("program, case", CASES)
def test_longest_pages(run_emulated, build, program, case):
  result = run_emulated([build / "preload" / program, case], LONGEST)
  if result.returncode == 77:
    pytest.skip(result.stderr.strip())
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
