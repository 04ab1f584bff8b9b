"""Running whole programs in turn on several mallocs, and what each run cost."""
import json
import os
import platform
import signal
import subprocess


class BadRun(Exception):
  """A program that failed, or that computed something else than before."""


def start(measure, report, words, env, stdin=None, **streams):
  """Starts a program below test/bench/measure, in a session of its own, to be ended with it."""
  report.unlink(missing_ok=True)
  streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
  with open(stdin or os.devnull, "rb") as source:
    return subprocess.Popen([measure, report, *words], env=env, stdin=source,
                            start_new_session=True, **streams)


def end(process):
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait(process, seconds):
  """Waits for a program; gives what it wrote."""
  try:
    return process.communicate(timeout=seconds)
  except subprocess.TimeoutExpired:
    end(process)
    raise BadRun(f"no end after {seconds} s") from None


def write_json(path, result):
  with open(path, "w", encoding="utf-8") as file:
    json.dump(result, file, indent=1)
    file.write("\n")


def costs(report):
  """What a run cost, as measure wrote it."""
  measured = json.loads(report.read_text(encoding="ascii"))
  return {
      "wall_s": measured["wall_s"],
      "cpu_s": measured["user_s"] + measured["system_s"],
      "peak_kib": measured["peak_kib"],
      "faults": measured["minor_faults"] + measured["major_faults"],
  }


def in_turn(contestants, repetitions, run, failed):
  """Gives {contestant: [what each repetition cost]}. In each repetition every contestant runs once,
  in an order that rotates, so that what else the machine does meets all of them alike. One that
  fails, by BadRun, is left out: failed(contestant, problem) hears of it."""
  runs = {contestant.name: [] for contestant in contestants}
  for repetition in range(repetitions):
    shift = repetition % len(contestants)
    for contestant in contestants[shift:] + contestants[:shift]:
      if contestant.name not in runs:
        continue
      try:
        runs[contestant.name].append(run(contestant))
      except BadRun as problem:
        failed(contestant, problem)
        del runs[contestant.name]
  return runs


def machine():
  """What the figures depend on."""
  model = "unknown"
  with open("/proc/cpuinfo", encoding="utf-8") as info:
    for line in info:
      if line.startswith("model name"):
        model = line.split(":", 1)[1].strip()
        break
  return {"processor": model, "processors": len(os.sched_getaffinity(0)),
          "kernel": platform.release(), "libc": " ".join(platform.libc_ver()),
          "load": os.getloadavg()[0]}
