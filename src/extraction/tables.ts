/**
 * Tables as rows of texts, cells that span several places in each of them (HTML, "Forming a
 * table"), so that every row has all columns.
 */
import { type Element, isTag, type ParentNode } from "domhandler";
import { inlineText } from "./text.ts";

export interface PageTable {
  readonly caption: string | null;
  /** Null: no row is made of headings alone. */
  readonly header: readonly string[] | null;
  readonly rows: readonly (readonly string[])[];
}

export interface GridCell {
  readonly element: Element;
  /** The first of the places that it takes. */
  readonly isFirst: boolean;
}

export interface TableGrid {
  readonly rows: readonly (readonly (GridCell | undefined)[])[];
  /** How many of them come first and are made of headings, or stand in `thead`. */
  readonly headRows: number;
  readonly caption: Element | undefined;
}

const TABLES_MAX = 1_000;
/** Of all tables of a page. */
const CELLS_MAX = 100_000;
const COLUMNS_MAX = 1_000;
const LENGTH_MAX = 1_000_000;

/** Of the page's tables in document order those that have a cell; one inside another comes on its own. */
export function findTables(elements: readonly Element[]): PageTable[] {
  const tables: PageTable[] = [];
  let cellsLeft = CELLS_MAX;
  let lengthLeft = LENGTH_MAX;
  for (const element of elements) {
    if (element.name !== "table") continue;
    const grid = readGrid(element, cellsLeft);
    const known = new Map<Element, string>();
    const textOf = (cell: GridCell | undefined) => {
      if (cell === undefined) return "";
      const text = known.get(cell.element) ?? inlineText(cell.element, (inner) => inner.name === "table");
      known.set(cell.element, text);
      lengthLeft -= text.length + 1;
      return text;
    };
    const rows = grid.rows.map((row) => row.map(textOf));
    if (rows.every((row) => row.every((text) => text === ""))) continue;
    cellsLeft -= rows.reduce((sum, row) => sum + row.length, 0);
    if (lengthLeft < 0) break;
    const head = rows.slice(0, grid.headRows);
    tables.push({
      caption: grid.caption === undefined ? null : inlineText(grid.caption),
      header:
        head.length === 0
          ? null
          : head[0]!.map((_, n) => [...new Set(head.map((row) => row[n]!))].join(" ").trim()),
      rows: rows.slice(grid.headRows),
    });
    if (tables.length === TABLES_MAX || cellsLeft <= 0) break;
  }
  return tables;
}

export function readGrid(table: Element, cellsMax = CELLS_MAX): TableGrid {
  const found = rowsOf(table);
  const rows: (GridCell | undefined)[][] = found.rows.map(() => []);
  let cells = 0;
  for (const [n, { element }] of found.rows.entries()) {
    const row = rows[n]!;
    let column = 0;
    for (const cell of element.children) {
      if (!isTag(cell) || (cell.name !== "td" && cell.name !== "th")) continue;
      while (row[column] !== undefined) column++;
      const width = span(cell.attribs.colspan, COLUMNS_MAX - column);
      const height = cell.attribs.rowspan === "0" ? rows.length : span(cell.attribs.rowspan, rows.length);
      for (let down = n; down < Math.min(rows.length, n + height); down++) {
        for (let right = column; right < column + width; right++) {
          if (++cells > cellsMax) return trimmed(rows, found);
          rows[down]![right] ??= { element: cell, isFirst: down === n && right === column };
        }
      }
      column += width;
      if (column >= COLUMNS_MAX) break;
    }
  }
  return trimmed(rows, found);
}

interface FoundRows {
  readonly rows: { readonly element: Element; readonly isHead: boolean }[];
  caption: Element | undefined;
}

/** `thead` first and `tfoot` last, wherever they stand. */
function rowsOf(table: Element): FoundRows {
  const found: FoundRows = { rows: [], caption: undefined };
  const foot: Element[] = [];
  const read = (parent: ParentNode, section: string) => {
    for (const child of parent.children) {
      if (!isTag(child)) continue;
      if (child.name === "tr") {
        if (section === "tfoot") foot.push(child);
        else found.rows.push({ element: child, isHead: section === "thead" });
      } else if (child.name === "caption") found.caption ??= child;
      else if (["thead", "tbody", "tfoot"].includes(child.name) && section === "") read(child, child.name);
    }
  };
  read(table, "");
  found.rows.sort((a, b) => Number(b.isHead) - Number(a.isHead));
  found.rows.push(...foot.map((element) => ({ element, isHead: false })));
  return found;
}

function trimmed(rows: (GridCell | undefined)[][], { rows: sources, caption }: FoundRows): TableGrid {
  const width = Math.max(0, ...rows.map((row) => row.length));
  const kept = rows
    .map((row, n) => ({ row, isHead: sources[n]!.isHead }))
    .filter(({ row }) => row.length > 0);
  let headRows = 0;
  const isHeading = ({ row, isHead }: { row: (GridCell | undefined)[]; isHead: boolean }) =>
    isHead || row.every((cell) => cell === undefined || cell.element.name === "th");
  while (headRows < kept.length - 1 && isHeading(kept[headRows]!)) headRows++;
  return { rows: kept.map(({ row }) => Array.from({ length: width }, (_, n) => row[n])), headRows, caption };
}

function span(text: string | undefined, max: number): number {
  const count = /^\s*\+?(\d{1,6})/.exec(text ?? "");
  return Math.max(1, Math.min(count === null ? 1 : Number(count[1]), max));
}
