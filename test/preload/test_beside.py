"""Other preloads and sandboxes that are out there: libfaketime, audit libraries, numpy, man, sshd."""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ORDERS = {"first": "{lib}:{other}", "last": "{other}:{lib}"}
PYTHON = "/usr/bin/python3"
SSHD = "/usr/sbin/sshd"


# libfaketime finds the real functions with dlsym, and interposes what allocators like to call.

@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("variant", ["libfaketime.so.1", "libfaketimeMT.so.1"])
@pytest.mark.parametrize("command", [
    ["date", "+%Y"],
    ["bash", "-c", "date +%Y; date +%Y >&2"],
    [PYTHON, "-c", "import time, threading\n"
     "t = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(5)]\n"
     "[x.start() for x in t]; [x.join() for x in t]; print(time.gmtime().tm_year)"]],
    ids=lambda words: pathlib.Path(words[0]).name)
def test_faketime(run_ok, lib, command, variant, order):
  found = sorted(pathlib.Path("/usr/lib").glob(f"*/faketime/{variant}"))
  if not found:
    pytest.skip("libfaketime is not installed")
  preload = ORDERS[order].format(lib=lib, other=found[0])
  result = run_ok(command, {"LD_PRELOAD": preload, "FAKETIME": "@2001-02-03 04:05:06"}, timeout=20)
  assert result.stdout == "2001\n"
  assert result.stderr in ("", "2001\n")


# With an audit library the loader sets up TLS in another order.

@pytest.mark.parametrize("command", [
    ["ls", "/etc/passwd"], [PYTHON, "-c", "import ctypes, json; print(1)"],
    ["{build}/preload/threads", "first_allocations_at_once"],
    ["{build}/preload/start_and_end"]], ids=lambda words: pathlib.Path(words[0]).name)
def test_audit_library(run_plain, run_ok, build, command):
  command = [word.format(build=build) for word in command]
  env = {"LD_AUDIT": str(build / "preload" / "lib_audit.so"),
         "LD_LIBRARY_PATH": str(build / "preload")}
  expected = run_plain(command, env)
  assert expected.returncode == 0, expected.stderr
  result = run_ok(command, env)
  assert sorted(result.stdout) == sorted(expected.stdout)
  assert result.stderr == ""


def test_numpy(run_plain, run_ok):
  """Large extension modules, some with TLS of their own, and threads in its BLAS."""
  code = ("import numpy as n; a = n.arange(250000.).reshape(500, 500) % 97\n"
          "b = a @ a.T; print(b.trace(), n.linalg.matrix_rank(a[:50, :50]), n.sort(a, None)[::9999],"
          " abs(n.fft.fft(a[3]))[:3].round(6), sum(len(str(x)) for x in a[0]))")
  if run_plain([PYTHON, "-c", "import numpy"]).returncode != 0:
    pytest.skip("numpy is not installed")
  expected = run_plain([PYTHON, "-c", code], {"OPENBLAS_NUM_THREADS": "4"})
  result = run_ok([PYTHON, "-c", code], {"OPENBLAS_NUM_THREADS": "4"})
  assert result.stdout == expected.stdout != ""
  assert result.stderr == ""


# Programs that lock themselves in with seccomp.

def test_man(run_plain, run_ok):
  """man runs nroff and the like behind a filter, which refuses what it does not know."""
  if shutil.which("man") is None:
    pytest.skip("man is not installed")
  command = ["man", "-P", "cat", "-l", ROOT / "docs" / "libminitc.3"]
  expected = run_plain(command)
  assert expected.returncode == 0 and "MINITC_STATS" in expected.stdout
  result = run_ok(command)
  assert result.stdout == expected.stdout
  assert result.stderr == expected.stderr


@pytest.fixture
def ssh_server(lib, tmp_path):
  """Starts sshd on the library; gives its port and log. It is gone at the end."""
  if not shutil.which(SSHD) or not shutil.which("ssh"):
    pytest.skip("sshd is not installed")
  if os.geteuid() != 0:
    pytest.skip("only root's sshd locks its children in")
  pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # the empty folder that the child is locked in
  for name in ("host", "user"):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name],
                   check=True)
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  (tmp_path / "config").write_text(
      f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\n"
      f"AuthorizedKeysFile {tmp_path}/user.pub\nPidFile none\nStrictModes no\nUsePAM no\n"
      "PermitRootLogin yes\nPasswordAuthentication no\n")
  log = tmp_path / "log"
  env = {**os.environ, "LD_PRELOAD": lib, "MINITC_VERBOSE": "1"}
  with log.open("w") as stream, subprocess.Popen(
      [SSHD, "-D", "-e", "-f", tmp_path / "config"], env=env, stdin=subprocess.DEVNULL,
      stdout=stream, stderr=stream) as server:
    try:
      for _ in range(300):
        if "listening on" in log.read_text() or server.poll() is not None:
          break
        time.sleep(0.1)
      yield port, log
    finally:
      server.terminate()


def test_sshd_login(ssh_server, run_plain, tmp_path):
  """The child that talks to a stranger may make few system calls. Killed, it lets nobody in."""
  port, log = ssh_server
  for _ in range(3):
    result = run_plain(["ssh", "-p", port, "-F", "none", "-i", tmp_path / "user", "-o",
                        "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o",
                        "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@127.0.0.1",
                        "echo logged in; seq 3"])
    assert (result.returncode, result.stdout) == (0, "logged in\n1\n2\n3\n"), (
        result.stderr + log.read_text())
  text = log.read_text()
  # The server, and its new image for each connection.
  assert len(re.findall(r"^libminitc: \d.*MINITC_VERBOSE=1", text, re.MULTILINE)) >= 4, text
  assert "sandbox" not in text and "violation" not in text, text
