// Writes in a database with better-sqlite3, a transaction a row: program.js DATABASE MODE ROWS
"use strict";

const Database = require("better-sqlite3");

const [path, mode, rows] = process.argv.slice(2);
const db = new Database(path);
const found = db.pragma(`journal_mode = ${mode}`, { simple: true });
db.exec("CREATE TABLE item(id INTEGER PRIMARY KEY, n INTEGER, text TEXT)");
const insert = db.prepare("INSERT INTO item(n, text) VALUES (?, ?)");
for (let n = 1; n <= Number(rows); ++n) insert.run(n, "x".repeat(n));
const rollBack = db.transaction(() => {
  db.exec("DELETE FROM item");
  throw new Error("roll back");
});
try {
  rollBack();
} catch (error) {
  if (error.message !== "roll back") throw error;
}
const version = db.prepare("SELECT sqlite_version() AS v").get().v;
db.close();
console.log(JSON.stringify({ mode: found, sqlite: version }));
