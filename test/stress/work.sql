-- 400,000 rows, then most of what a database does to them. No random() and no date: the same
-- statements must leave the same rows, byte for byte, under any malloc.
.bail on
PRAGMA journal_mode = wal;
PRAGMA synchronous = off;
PRAGMA cache_size = -60000;
PRAGMA temp_store = memory;
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, name TEXT, price REAL, note BLOB);
BEGIN;
INSERT INTO item SELECT value, (value * 7919) % 1009,
  printf('item %x', (value * 2654435761) % 4294967296), (value * 31 % 10007) / 8.0,
  substr('abcdefghijklmnopqrstuvwxyz', 1 + value % 20, 1 + value % 6)
  FROM generate_series(1, 400000);
COMMIT;
CREATE INDEX item_by_group ON item(grp, price);
CREATE INDEX item_by_name ON item(name) WHERE id % 4 = 0;
ANALYZE;
SELECT 'groups', count(*), sum(n), max(m), sum(s) FROM
  (SELECT grp, count(*) AS n, max(price) AS m, sum(length(name)) AS s FROM item GROUP BY grp);
SELECT grp, count(*), avg(price), min(name), count(DISTINCT note) FROM item
  GROUP BY grp HAVING grp % 25 = 0 ORDER BY avg(price), grp;
SELECT length(group_concat(name)), length(json_group_array(json_object('i', id, 'n', name)))
  FROM item WHERE id % 10 = 0;
BEGIN;
UPDATE item SET price = price + 1, name = name || ' changed ' || grp WHERE grp % 17 = 3;
UPDATE item SET note = zeroblob(id % 3000) WHERE id % 997 = 0;
UPDATE item SET note = printf('%.*c', 100000 + id % 1000, 'y') WHERE id % 99991 = 0;
DELETE FROM item WHERE grp BETWEEN 100 AND 130;
DELETE FROM item WHERE name LIKE 'item a%3';
COMMIT;
BEGIN;
DELETE FROM item WHERE id > 360000;
SAVEPOINT half;
UPDATE item SET grp = -grp WHERE id < 40000;
ROLLBACK TO half;
ROLLBACK;
CREATE TABLE summary AS SELECT a.grp, count(*) AS pairs, total(b.price) AS price
  FROM item AS a JOIN item AS b ON b.id = a.id + a.grp WHERE a.id % 5 = 0 GROUP BY a.grp;
WITH RECURSIVE chain(id, depth) AS (SELECT 1, 0 UNION ALL
  SELECT (id * 48271) % 1000003, depth + 1 FROM chain WHERE depth < 20000)
SELECT 'chain', count(item.id), sum(grp) FROM chain JOIN item USING (id);
SELECT grp, name, rank() OVER (PARTITION BY grp ORDER BY price DESC, id) AS place FROM item
  WHERE id % 499 = 0 ORDER BY grp, place, id LIMIT 500;
SELECT 'sorted', group_concat(n, '') FROM
  (SELECT substr(name, -1) AS n FROM item WHERE id % 200 = 1 ORDER BY name DESC, id);
PRAGMA wal_checkpoint(truncate);
VACUUM;
REINDEX item_by_group;
PRAGMA integrity_check;
SELECT 'rows', count(*), sum(id), total(price), sum(length(note)) FROM item;
