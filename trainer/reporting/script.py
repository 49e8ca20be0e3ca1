"""What a reader may do with a table of the page: order it by a column, look for rows. Without it all tables stand as they were written.

The page's policy allows these very characters and no other script; they put text into the page as text alone.
"""

from __future__ import annotations

import base64
import hashlib

FEWEST_ROWS = 6
"""A table with fewer rows gets no filter: all of it is on the screen."""

SCRIPT = """
"use strict";
(function () {
  var NUMBER = /^[+-]?\\d+(\\.\\d+)?(e[+-]?\\d+)?/i;

  function text(row, column) { return row.cells[column].textContent.trim(); }

  function number(cell) { var found = NUMBER.exec(cell); return found ? parseFloat(found[0]) : NaN; }

  // Names by their letters; other columns by the number that a cell begins with, where half of those that say something have one.
  function numeric(rows, column) {
    var said = rows.map(function (r) { return text(r, column); }).filter(function (t) { return t !== "" && t !== "\\u2013"; });
    var numbers = said.filter(function (t) { return !isNaN(number(t)); });
    return column > 0 && numbers.length > 0 && 2 * numbers.length >= said.length;
  }

  function ordered(rows, column, sign) {
    var byNumber = numeric(rows, column);
    function missing(t) { return byNumber ? isNaN(number(t)) : t === "" || t === "\\u2013"; }
    return rows.slice().sort(function (a, b) {
      var x = text(a, column), y = text(b, column);
      if (missing(x) || missing(y)) { return missing(x) - missing(y); }  // last, whichever way
      return sign * (byNumber ? number(x) - number(y) : x.localeCompare(y, "en", { numeric: true }));
    });
  }

  function sortable(table) {
    var body = table.tBodies[0], written = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent || "name";
      head.replaceChildren(button);
      button.addEventListener("click", function () {
        var next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
        heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
        if (next !== "none") { head.setAttribute("aria-sort", next); }
        var rows = next === "none" ? written : ordered(written, column, next === "ascending" ? 1 : -1);
        body.append.apply(body, rows);
      });
    });
  }

  function filterable(table, title) {
    var rows = Array.from(table.tBodies[0].rows), field = document.createElement("input"), count = document.createElement("output");
    var bar = document.createElement("p");
    bar.className = "filter";
    field.type = "search";
    field.placeholder = "filter rows";
    field.setAttribute("aria-label", "filter rows of " + title);
    field.addEventListener("input", function () {
      var words = field.value.toLowerCase().split(/\\s+/), shown = 0;
      rows.forEach(function (row) {
        var cells = Array.from(row.cells).map(function (c) { return c.textContent; }).join("\\n").toLowerCase();
        row.hidden = !words.every(function (w) { return cells.includes(w); });
        shown += !row.hidden;
      });
      count.textContent = field.value.trim() ? shown + " of " + rows.length + " rows" : "";
    });
    bar.append(field, " ", count);
    table.parentNode.before(bar);
  }

  document.querySelectorAll("div.scroll > table").forEach(function (table) {
    sortable(table);
    if (table.tBodies[0].rows.length >= FEWEST) { filterable(table, table.getAttribute("aria-label") || "this table"); }
  });
}());
""".replace("FEWEST", str(FEWEST_ROWS))

ALLOWED = "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
"""The source of a content security policy that lets this script run alone."""
