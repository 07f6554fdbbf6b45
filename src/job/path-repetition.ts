/**
 * Paths that go round in circles: `/a/b/a/b/a/b`. A relative link that a site
 * answers below every page makes such a path longer with each fetch.
 */

/** So often in a row, and it is taken for a circle. */
const TIMES_MAX = 3;
/** Segments of one turn. */
const TURN_LENGTH_MAX = 8;

/**
 * Whether some run of up to eight segments stands three times in a row. Numbers
 * alone are no circle: `/2024/11/11/11` is a date and an hour.
 *
 * @param url canonical.
 */
export function repeatsItself(url: string): boolean {
  const start = url.indexOf("/", url.indexOf("://") + 3);
  const end = url.indexOf("?", start);
  const segments = url
    .slice(start + 1, end === -1 ? undefined : end)
    .split("/")
    .filter((segment) => segment !== "");
  for (let length = 1; length <= TURN_LENGTH_MAX && length * TIMES_MAX <= segments.length; length++) {
    // How many segments in a row equal the one a turn before them.
    let same = 0;
    let named = false;
    for (let at = length; at < segments.length; at++) {
      if (segments[at] !== segments[at - length]) {
        same = 0;
        named = false;
        continue;
      }
      same++;
      if (!/^\d+$/.test(segments[at]!)) named = true;
      if (same >= length * (TIMES_MAX - 1) && named) return true;
    }
  }
  return false;
}
