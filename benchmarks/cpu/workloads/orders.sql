-- Work for a database: rows made by recursion, indexes, joins, groups, windows, text search, updates.
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, amount REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO customers SELECT i, 'name' || (i * 7919 % 2003), 'city' || (i * 31 % 97) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
INSERT INTO orders SELECT i, 1 + i * 48271 % 2000, (i * 16807 % 100000) / 100.0, 'note ' || hex(i * 69621 % 65521) FROM n;
CREATE INDEX by_customer ON orders (customer, amount);
CREATE INDEX by_city ON customers (city);
SELECT city, count(*), round(sum(amount), 2) FROM customers JOIN orders ON customer = customers.id
GROUP BY city ORDER BY 3 DESC LIMIT 5;
SELECT count(*), max(note) FROM orders WHERE note LIKE '%AB%';
SELECT id, total FROM (SELECT id, sum(amount) OVER (PARTITION BY customer ORDER BY id) AS total FROM orders)
ORDER BY total DESC, id LIMIT 3;
UPDATE orders SET amount = amount * 1.5 WHERE customer IN (SELECT id FROM customers WHERE city = 'city13');
DELETE FROM orders WHERE id % 11 = 0;
SELECT count(*), round(avg(amount), 3), count(DISTINCT substr(note, 6, 2)) FROM orders;
SELECT a.name, count(*) FROM customers a JOIN customers b ON a.city = b.city AND a.id < b.id
GROUP BY a.name ORDER BY 2 DESC, 1 LIMIT 3;
