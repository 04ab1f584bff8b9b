"""The sqlite3 shell with 400,000 rows (see work.sql): same answers, same dump."""
from side_by_side import HERE, require_same, run_both, tool


def test_sqlite_answers_and_dump(lib, tmp_path):
  sqlite = tool("sqlite3", "sqlite3")
  plain, preloaded = run_both(tmp_path, lib, [sqlite, "test.db"], stdin=HERE / "work.sql")
  lines = preloaded.out.decode().splitlines()
  assert lines[-2] == "ok", f"PRAGMA integrity_check: {lines[-2]}"
  assert int(lines[-1].split("|")[1]) > 360_000, lines[-1]
  # Each database is read by a plain and by a preloaded sqlite3, in turn: of two that open one in
  # its journal mode at the same moment, either may be told that it is locked.
  dumps = []
  for writer in (plain, preloaded):
    reader, _ = run_both(tmp_path, lib, [sqlite, "-readonly", writer.folder / "test.db", ".dump"],
                         together=False)
    dumps.append(reader.out)
  assert len(dumps[0]) > 20_000_000
  require_same("the dump", *dumps)
